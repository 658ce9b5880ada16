"""Who looks for what others wrote, and what looking finds."""

from collections.abc import Callable, Iterator
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
from job_harness import SharedJob
from numpy.typing import NDArray
from rank_harness import Script, ref, request, wait_for

from kvbench import timed_io
from kvbench.cache.announcements import Kind, announcements
from kvbench.engine.violations import Violations
from kvbench.engine.visibility import Looker, lookers
from kvbench.records.schema import Path

KEYS = np.random.default_rng(3).integers(0, 2**64, 4000, dtype=np.uint64)


def chosen(writer: int, nodes: list[int]) -> NDArray[np.int64]:
    return lookers(KEYS, np.full(len(KEYS), writer, np.int64), np.array(nodes, np.int64))


def test_ranks_of_other_nodes_look_in_equal_parts() -> None:
    drawn = chosen(0, [0, 0, 1, 1, 2])
    assert (drawn < 0).mean() < 0.01, "eight draws may all miss"
    counts = np.bincount(drawn[drawn >= 0], minlength=5)
    assert counts[:2].tolist() == [0, 0]
    assert counts[2:] == pytest.approx(np.full(3, len(KEYS) / 3), rel=0.1)


def test_on_one_node_any_other_rank_looks() -> None:
    counts = np.bincount(chosen(1, [0, 0, 0]), minlength=3)
    assert counts[1] == 0
    assert counts[[0, 2]] == pytest.approx(np.full(2, len(KEYS) / 2), rel=0.1)


def test_nobody_looks_where_nobody_else_is() -> None:
    assert set(chosen(0, [0]).tolist()) == {-1}


@pytest.fixture
def read_path() -> Path:
    return Path.BUFFERED


@pytest.fixture
def job(folder: FilePath, read_path: Path) -> Iterator[SharedJob]:
    """Rank 0 has written object 7 of three sectors."""
    made = SharedJob(folder, 2, 100, read_path)
    made.run(Script([[request(0, ref(7, 3))]]), Script([[]]))
    yield made
    made.close()


def look(
    job: SharedJob, until: Callable[[Looker], bool], then: Callable[[], object] = lambda: None
) -> NDArray[np.void]:
    """Offer the announcement of object 7 to rank 1, and stop when `until` holds; `then` runs meanwhile."""
    violations = job.engines[1].violations
    assert violations is not None
    looker = Looker(job.sharings[1], job.tiers[1], job.payloads.__getitem__, violations, 10)
    looker.start()
    looker.offer(announcements([(7, 123, 3, 0, 0, Kind.WRITTEN)]))
    then()
    wait_for(lambda: until(looker), "nothing was found")
    return looker.stop()


@pytest.mark.parametrize("read_path", [path for path in Path if path < Path.COPY])
def test_an_object_that_is_there_is_found_at_the_first_look(job: SharedJob) -> None:
    (row,) = look(job, lambda looker: looker.looked_for == 1)
    assert (row["key"], row["nbytes"], row["writer"], row["reader"], row["written_ns"]) == (7, 3 * 4096, 0, 1, 123)
    assert row["looks"] == 1
    assert row["readable_ns"] >= row["heard_ns"]


def test_an_object_that_comes_late_is_looked_for_again(job: SharedJob, monkeypatch: pytest.MonkeyPatch) -> None:
    content = job.file(0, 7).read_bytes()
    job.file(0, 7).write_bytes(content[: 2 * 4096])
    really_look = Looker._look
    looked: list[bool] = []
    back_ns: list[int] = []

    def counted(looker: Looker, *others: Any) -> bool:
        found = really_look(looker, *others)
        looked.append(found)
        return found

    def bring_back() -> None:
        wait_for(lambda: len(looked) > 2, "nobody looks")
        back_ns.append(timed_io.now_ns())
        job.file(0, 7).write_bytes(content)

    monkeypatch.setattr(Looker, "_look", counted)
    (row,) = look(job, lambda looker: looker.looked_for == 1, bring_back)
    assert row["looks"] == len(looked) > 3
    assert looked == [False] * (len(looked) - 1) + [True]
    assert row["heard_ns"] < back_ns[0] <= row["readable_ns"]
    assert job.violations() == {}


def test_an_object_that_never_comes_is_a_violation(job: SharedJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvbench.engine.visibility.GIVE_UP_S", 0.1)
    job.file(0, 7).unlink()
    (row,) = look(job, lambda looker: looker.looked_for == 1)
    assert row["readable_ns"] == 0
    assert job.violations() == {"unseen": 1}


def test_an_object_that_is_retired_meanwhile_is_no_longer_looked_for(job: SharedJob) -> None:
    job.file(0, 7).unlink()
    retired = announcements([(7, 0, 0, 0, 0, Kind.RETIRED)])
    rows = look(job, lambda looker: True, lambda: job.sharings[1].peers.apply(retired))
    assert len(rows) == 0
    assert job.violations() == {}


def test_more_results_than_are_kept_leave_a_sample(job: SharedJob) -> None:
    looker = Looker(job.sharings[1], job.tiers[1], job.payloads.__getitem__, Violations(1), 10)
    looker.start()

    def offer_again() -> bool:
        looker.offer(announcements([(7, 123, 3, 0, 0, Kind.WRITTEN)]))
        return looker.looked_for > 15

    wait_for(offer_again, "nothing was found")
    assert len(looker.stop()) == 10


def test_waiting_for_the_looks_before_is_not_the_filesystems(job: SharedJob, monkeypatch: pytest.MonkeyPatch) -> None:
    really_look = Looker._is_there
    began: list[int] = []

    def slow(looker: Looker, *others: Any) -> bool:
        began.append(timed_io.now_ns())
        until_ns = began[-1] + 20_000_000
        wait_for(lambda: timed_io.now_ns() > until_ns, "time stands still")
        return really_look(looker, *others)

    monkeypatch.setattr(Looker, "_is_there", slow)
    looker = Looker(job.sharings[1], job.tiers[1], job.payloads.__getitem__, Violations(1), 100)
    looker.start()

    def offer_more() -> bool:
        looker.offer(announcements([(7, 123, 3, 0, 0, Kind.WRITTEN)] * 10))
        return looker.looked_for >= 3

    wait_for(offer_more, "nothing was found")
    rows = looker.stop()
    assert (rows["heard_ns"] <= began[: 2 * len(rows) : 2]).all()
    assert (rows["heard_ns"][1:] >= rows["readable_ns"][:-1]).all(), "it is heard of when its turn has come"
