"""The memory of a GPU that is not there: it decides what storage is asked for, and nothing is ever moved to or from it.

Which blocks it would hold is the cache's business (`cache.chains`); what it pushes out is written to the tier below, as
if it came from there. It stands in the list of tiers so that these have the same numbers everywhere.
"""

from typing import NoReturn

from kvbench.records.schema import Path
from kvbench.tiers.arena import Memory
from kvbench.tiers.contract import Tier
from kvbench.tiers.transfer import Cell, Part


class ModelledTier(Tier):
    """Has a place and no content."""

    kind = "gpu"
    storage = False
    holds_bytes = False
    read_path = Path.NONE
    write_path = Path.NONE

    def write(self, cell: Cell, key: int, part: Part, source: Memory, handle: int = -1) -> NoReturn:
        self._refuse()

    def read(self, cell: Cell, key: int, part: Part, target: Memory, handle: int = -1) -> NoReturn:
        self._refuse()

    def delete(self, cell: Cell, key: int) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotImplementedError("a modelled tier holds nothing that could be moved")
