"""Where the objects of a kind of storage lie, and all that this kind alone has: the contract of a target.

A directory is one, a bucket could be. A run asks it what it is and whether it can be used, then for a part of it that
is one rank's own (`Area`), which it gives back when it ends. It knows nothing of other ranks: which of them have the
same place they find out among themselves, from the signs that they put up there.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kvbench.config.run_config import Io, TierSection
from kvbench.errors import KvbenchError
from kvbench.tiers.contract import Tier

Reach = Literal["local", "network", "unknown"]
LeftoverState = Literal["left over", "in use", "unknown", "not ours"]


@dataclass(frozen=True, slots=True)
class Volume:
    """What files or objects lie on: a filesystem, or what there is instead."""

    kind: str
    """As in the mount table: `ext4`, `tmpfs`, `nfs4`, `fuse.glusterfs`."""
    mount_point: str
    """Where it begins."""
    options: str
    """Options of the mount and then of the filesystem, comma-separated."""
    device: str
    """What is mounted: a block device, `server:/export`, or the kind again."""
    total_bytes: int
    free_bytes: int
    """What a user without privileges can still write."""
    in_memory: bool = False
    """Whether what lies on it is the node's memory and no device takes part."""
    reach: Reach = "unknown"
    """Whether one machine alone has it at a time, or it is there for being used by several."""

    @property
    def tells_space(self) -> bool:
        """Whether it says how much it can hold; ramfs and some filesystems in user space say 0 bytes."""
        return self.total_bytes > 0

    @property
    def disk(self) -> str | None:
        """Name of the block device that the kernel counts its traffic under (`vda1`), None where there is none."""
        name = Path(self.device).resolve().name if self.device.startswith("/dev/") else ""
        return name if name and Path("/sys/class/block", name).exists() else None


NO_VOLUME = Volume("none", "none", "", "none", 0, 0)
"""Stands for that of a run that keeps nothing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    state: Literal["ok", "warn", "fail"]
    """`fail` is only what would make a run fail; what makes it slower, or its figures less certain, is `warn`."""
    text: str


@dataclass(slots=True)
class Leftover:
    """What a run left right in a target: its part of it, or a sign."""

    path: Path
    run_id: str
    state: LeftoverState
    """`unknown`: whether its ranks are alive cannot be told."""
    files: int = 0
    """Objects, or the one sign."""
    nbytes: int = 0
    age_s: float = 0.0
    """Since anything in it was last written."""
    strangers: list[str] = field(default_factory=list)
    """What is in it and is not kvbench's, as names below `path`."""
    address: str = ""
    """Of the target that it is in, below which `path` is a name; "": a directory, that of `path`."""

    @property
    def place(self) -> str:
        """The address of the target that it is in."""
        return self.address or str(self.path.parent)

    @property
    def text(self) -> str:
        """Where it is, for messages."""
        return f"{self.address}/{self.path}" if self.address else str(self.path)

    def may_go(self, even_unknown: bool = False) -> bool:
        """Whether anything of it is deleted when it is removed."""
        return self.state == "left over" or (self.state == "unknown" and even_unknown)


@dataclass(frozen=True, slots=True)
class TierSettings:
    """How a tier is to move bytes, and how many it may hold."""

    section: TierSection
    io: Io
    capacity_bytes: int
    shared: bool = False
    """Whether other ranks read what it holds."""


class Area(ABC):
    """The part of a target that one rank of one run has for itself; it is marked as kvbench's."""

    def __init__(self, address: str, where: str) -> None:
        self.address = address
        """Of the target that it is in."""
        self.where = where
        """What is a rank's own there, for messages."""

    def create(self) -> None:  # noqa: B027 - some need not be made before a tier is opened
        """Make it. Raises KvbenchError naming what is wrong."""

    @abstractmethod
    def open_tier(self, settings: TierSettings) -> Tier:
        """A tier that keeps its objects here; several may be open at once, with different settings. Raises OSError."""

    @abstractmethod
    def remove(self) -> Sequence[str]:
        """Remove what `create` and the tiers made, and nothing else; does nothing where nothing was made.

        Returns the names of what was found here that kvbench did not make, and stays. Raises OSError.
        """


class Target(ABC):
    """One place under test, as a rank sees it."""

    def __init__(self, address: str) -> None:
        self.address = address

    def check(self) -> None:
        """Raise KvbenchError where it cannot be used, with what to do."""
        try:
            self.describe()
        except OSError as error:
            raise KvbenchError(f"{self.address} cannot be used: {error.strerror or error}") from error

    def consent(self, devices: Collection[str]) -> None:
        """Take note of which block devices may be overwritten. Raises KvbenchError where this one may not, or where
        there is none."""
        if devices:
            raise KvbenchError(
                f"--consent-device {sorted(devices)[0]}: nothing is written to a block device here; it goes with "
                "--dir of a device, and layout.kind=slab"
            )

    def describe(self) -> Volume:
        """What it lies on, with the space that is free now; where nothing is known of that, its address. Raises
        OSError."""
        return Volume("unknown", self.address, "", self.address, 0, 0)

    @abstractmethod
    def area(self, run_id: str, rank: int) -> Area:
        """The part of it that is a rank's own; nothing is made yet."""

    def is_there(self) -> bool:
        """Whether there is anything at all at the address."""
        return True

    def is_same(self, other: "Target") -> bool:
        """Whether another target of this kind, on this node, is the same place. Raises OSError."""
        return self.address == other.address

    def put_up_sign(self, run_id: str, number: int) -> None:  # noqa: B027 - see lowest_sign
        """Put up a sign of a run, for other ranks to see: under a number that no other sign of the run has. Raises
        KvbenchError."""

    def lowest_sign(self, run_id: str, numbers: Collection[int]) -> int | None:
        """The lowest of `numbers` whose sign is seen here now. Raises KvbenchError.

        Where no signs are put up, an address means the same place to everybody.
        """
        return min(numbers, default=None)

    def take_down_sign(self, run_id: str, number: int) -> None:  # noqa: B027 - see lowest_sign
        """Take a sign down again. Raises KvbenchError."""

    def is_beside(self, directory: Path) -> bool:
        """Whether this is there and what is written to `directory`, which exists, goes to the same volume. Raises
        OSError."""
        return False

    def holds(self, run_id: str) -> bool:
        """Whether anything of a run is there."""
        return False

    def examine(self) -> Iterator[Finding]:
        """Look at it closely, as a doctor does; what is written for that is removed."""
        self.check()
        yield Finding("target", "ok", self.address)

    def leftovers(self) -> list[Leftover]:
        """What runs have here, oldest first. Raises KvbenchError where it cannot be looked into."""
        return []

    def remove_leftover(self, leftover: Leftover, even_unknown: bool = False) -> Leftover:
        """Delete what is kvbench's of it; returns what is left of it, with no files if nothing is.

        It is looked at anew: what has come into use stays, and so does what is in state `unknown` unless
        `even_unknown`. Raises KvbenchError where something cannot be deleted.
        """
        return leftover


class NoTarget(Target):
    """That of a run that keeps nothing anywhere."""

    def __init__(self) -> None:
        super().__init__("none")

    def check(self) -> None:
        """Nothing can be wrong with it."""

    def describe(self) -> Volume:
        return NO_VOLUME

    def area(self, run_id: str, rank: int) -> Area:
        return _NoArea(self.address, self.address)


class _NoArea(Area):
    def open_tier(self, settings: TierSettings) -> Tier:
        raise NotImplementedError("there is no place to keep objects")

    def remove(self) -> Sequence[str]:
        return ()
