"""The I/O engines by which files are read and written together (`io.engine`), by their names."""

from kvbench.config.run_config import Io
from kvbench.tiers.file.nixl_library import check_nixl, options_of
from kvbench.tiers.file.nixl_transfers import NixlTransfers
from kvbench.tiers.file.overlapping import Overlapping
from kvbench.tiers.file.rings import Rings, check_rings


def overlapping_of(io: Io) -> Overlapping | None:
    """What a tier moves bytes with as `io` says; None: one operation after the other."""
    if io.engine == "uring":
        return Rings(io.depth)
    if io.engine == "nixl":
        return NixlTransfers(io.nixl.backend, options_of(io.nixl, io.depth))
    return None


def rings_of(io: Io) -> Rings | None:
    """Those of a tier that no other engine can move bytes of; None: it has none."""
    return Rings(io.depth) if io.engine == "uring" else None


def check_engine(io: Io) -> None:
    """Raise KvbenchError where the engine of `io` cannot be used here, with what to do."""
    if io.engine == "uring":
        check_rings(io.depth)
    elif io.engine == "nixl":
        check_nixl(io.nixl, io.depth)
