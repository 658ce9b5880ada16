"""A place in a bucket under test, as the target of a tier of objects: `s3://bucket/prefix`."""

from collections.abc import Collection, Coroutine, Iterator
from typing import Any, TypeVar

from kvbench.config.run_config import TierSection
from kvbench.errors import KvbenchError
from kvbench.tiers.object import leftovers
from kvbench.tiers.object.address import Address, is_plain
from kvbench.tiers.object.examine import examine
from kvbench.tiers.object.failures import RequestError
from kvbench.tiers.object.library import open_store
from kvbench.tiers.object.naming import name_of_run, name_of_sign
from kvbench.tiers.object.place import BucketArea, at_once
from kvbench.tiers.object.requests import Requests
from kvbench.tiers.target import Finding, Leftover, Target, Volume

_Answer = TypeVar("_Answer")
_SIGN_BYTES = 2**20


class BucketTarget(Target):
    """A bucket that exists, or a prefix in it, which need not."""

    def __init__(self, address: str, requests: Requests | None = None) -> None:
        """`requests`: to its bucket, for tests; None: as the address and the environment say, opened when needed."""
        super().__init__(address)
        self._opened = requests

    @property
    def place(self) -> Address:
        """The address in its parts. Raises KvbenchError where it is none."""
        return Address.parse(self.address)

    @property
    def requests(self) -> Requests:
        """To its bucket. Raises KvbenchError where it cannot be opened."""
        if self._opened is None:
            retries = TierSection.model_fields["retries"].default
            self._opened = Requests(open_store(self.place), self.place.scheme, retries)
        return self._opened

    def check(self) -> None:
        """Ask for the first object below it."""
        self._asked(self.requests.is_reached(self.place.prefix))

    def describe(self) -> Volume:
        """No store says how much it can hold."""
        place = self.place
        security = "http" if is_plain(place.scheme) else "https"
        return Volume(place.scheme, place.root, security, place.root, 0, 0, reach="network")

    def area(self, run_id: str, rank: int) -> BucketArea:
        return BucketArea(self.requests, self.place, run_id, rank)

    def is_there(self) -> bool:
        """A prefix need not be made, so one is as good as another; those of the ranks of a node are looked at where
        they hold anything."""
        return bool(self._asked(self.requests.folders(self.place.prefix)))

    def is_same(self, other: Target) -> bool:
        """Prefixes of one bucket are the same place."""
        return Address.parse(other.address).root == self.place.root

    def put_up_sign(self, run_id: str, number: int) -> None:
        """An empty object."""
        path = self.place.path(name_of_sign(run_id, number))
        self._asked(self.requests.put(path, [memoryview(b"")], _SIGN_BYTES, 1))

    def lowest_sign(self, run_id: str, numbers: Collection[int]) -> int | None:
        """Each is asked for by its name: what a store has taken, it shows to everybody."""
        for number in sorted(numbers):
            if self._asked(self.requests.head(self.place.path(name_of_sign(run_id, number)))) is not None:
                return number
        return None

    def take_down_sign(self, run_id: str, number: int) -> None:
        self._asked(self.requests.delete(self.place.path(name_of_sign(run_id, number))))

    def holds(self, run_id: str) -> bool:
        return bool(self._asked(self.requests.folders(self.place.path(name_of_run(run_id)))))

    def examine(self) -> Iterator[Finding]:
        try:
            self.check()
            volume = self.describe()
        except KvbenchError as error:
            yield Finding("bucket", "fail", str(error))
            return
        yield Finding("bucket", "ok", f"{self.address}, over {volume.options}")
        yield Finding("free space", "warn", "not told by the store: set capacity_bytes of the object tier")
        yield from examine(self.requests, self.place)

    def leftovers(self) -> list[Leftover]:
        return self._asked(leftovers.find(self.requests, self.place))

    def remove_leftover(self, leftover: Leftover, even_unknown: bool = False) -> Leftover:
        name, gone = str(leftover.path), Leftover(leftover.path, leftover.run_id, "left over", address=self.address)
        now = self._asked(leftovers.look(self.requests, self.place, name))
        if now is None or not now.may_go(even_unknown):
            return now or gone
        self._asked(leftovers.remove(self.requests, self.place, name, leftover.run_id))
        return self._asked(leftovers.look(self.requests, self.place, name)) or gone

    def _asked(self, request: Coroutine[Any, Any, _Answer]) -> _Answer:
        """What comes of a request. Raises KvbenchError."""
        try:
            return at_once(request)
        except RequestError as error:
            raise KvbenchError(f"{self.address} cannot be used: {error.strerror}") from error
