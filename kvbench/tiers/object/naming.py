"""What kvbench calls its own in a bucket: names alone, no requests.

`<prefix>/kvbench-<run id>/rank-<r>/` has a marker that names the run, and objects called after their keys.
"""

import re
from typing import Final

_OBJECT: Final = re.compile(r"[0-9a-f]{16}\.kv")


def name_of_object(key: int) -> str:
    """Sixteen hexadecimal digits of the key: nothing from a trace or a configuration can become part of a path."""
    return f"{key & 0xFFFFFFFFFFFFFFFF:016x}.kv"


def is_name_of_object(name: str) -> bool:
    """Whether an object tier calls objects so."""
    return _OBJECT.fullmatch(name) is not None


def name_of_run(run_id: str) -> str:
    """What all of a run's names begin with."""
    return f"kvbench-{run_id}"


def name_of_rank(rank: int) -> str:
    """The rank's own folder in that of its run."""
    return f"rank-{rank}"


def name_of_sign(run_id: str, number: int) -> str:
    """That of a sign of a run."""
    return f"kvbench-{run_id}.probe-{number}"
