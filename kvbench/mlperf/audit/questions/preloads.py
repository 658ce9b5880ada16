"""Libraries that were loaded before the benchmark's own (LD_PRELOAD), and what each is known to do, by its name."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from kvbench.mlperf.audit.finding import Answer, Evidence, Finding, NotAudited, Weight, few
from kvbench.mlperf.audit.leaf import LeafFacts
from kvbench.mlperf.rules.preloads import ALLOCATOR, NO_DROP, NO_SYNC

KIND: Final = "preloaded-library"


@dataclass(frozen=True, slots=True)
class Known:
    """What libraries of some name do."""

    name: re.Pattern[str]
    weight: Weight
    does: str
    effect: str


_DROP: Final = (
    "the figures of reads cover what the page cache of the clients held as well as the storage, because nothing "
    "dropped it before a read (6.4.2); by how much cannot be recomputed from the results"
)
_SYNC: Final = (
    "the figures of writes cover what reached the page cache of the clients or the filesystem's client, because "
    "nothing made it durable (6.4.2); the P95 of writes is of calls that do nothing"
)
_KNOWN: Final = (
    Known(NO_DROP, "invalidates", "makes posix_fadvise do nothing", _DROP),
    Known(NO_SYNC, "invalidates", "makes fsync and its like do nothing", _SYNC),
    Known(
        ALLOCATOR,
        "notable",
        "is another allocator of memory",
        "the span of a load, which the rules call device time, holds the allocation of what is loaded: it is that of "
        "this allocator, and not of the one that others ran with",
    ),
    Known(
        re.compile(r"(?:lib)?(?:pil4dfs|ioil|gkfs|unifyfs|hermes|syscall_intercept)", re.ASCII),
        "notable",
        "takes over the file operations of the process",
        "figures are of this path to the storage and not of the mounted filesystem; whether it has a page cache that "
        "is dropped, and what its fsync does, the tree does not say",
    ),
    Known(
        re.compile(r"(?:lib)?(?:vma|xlio|onload)", re.ASCII),
        "notable",
        "takes over the network of the process",
        "figures are of this path to the storage",
    ),
)


def preloads(leaf: LeafFacts) -> Iterator[Answer]:
    """Every library that commands, arguments or the described environment preload, one finding for each."""
    shown: dict[str, list[Evidence]] = {}
    for one in leaf.preloads:
        shown.setdefault(one.library, []).append(Evidence(one.path, one.key, one.library))
    for library, evidence in shown.items():
        yield _finding(library, few(evidence, 4))
    expected = (leaf.trials_per_option or 0) * len(leaf.options)
    if leaf.ours:
        yield NotAudited(KIND, "beyond the command line: the environment of the ranks is not recorded")
    elif not leaf.launches:
        yield NotAudited(KIND, "no command line is recorded")
    elif leaf.commands < expected:
        yield NotAudited(KIND, f"{expected - leaf.commands} of {expected} trials have no command line in the tree")


def keeps_the_page_cache(leaf: LeafFacts) -> bool:
    """Whether something was preloaded that keeps the page cache from being dropped."""
    return any(NO_DROP.match(PurePosixPath(one.library).name) for one in leaf.preloads)


def _finding(library: str, evidence: tuple[Evidence, ...]) -> Finding:
    name = PurePosixPath(library).name
    known = next((one for one in _KNOWN if one.name.match(name)), None)
    if known is None:
        does = "is preloaded, and what it does is not in the tree"
        return Finding("notable", KIND, f"{name} {does}", "unknown: it can change any call of the benchmark", evidence)
    return Finding(known.weight, KIND, f"{name} is preloaded, which by its name {known.does}", known.effect, evidence)
