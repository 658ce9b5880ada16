"""What a rank knows of other ranks' objects, against the plain set of (object, writer) pairs that it stands for."""

from hypothesis import given
from hypothesis import strategies as st

from kvbench.cache.announcements import Kind, announcements
from kvbench.cache.peers import PeerDirectory

News = list[tuple[int, int, Kind]]
"""Key, rank, kind."""

ME = 2


def told(news: News) -> PeerDirectory:
    directory = PeerDirectory(ME)
    directory.apply(announcements([(key, 0, 1, rank, 0, kind) for key, rank, kind in news]))
    return directory


def test_an_object_may_be_read_from_whoever_wrote_it() -> None:
    directory = told([(7, 1, Kind.WRITTEN)])
    assert directory.writer_of(7) == 1
    assert directory.holds(7, 1)
    assert directory.writer_of(8) is None


def test_a_retired_object_is_read_from_another_who_wrote_it_too() -> None:
    directory = told([(7, 1, Kind.WRITTEN), (7, 3, Kind.WRITTEN), (7, 1, Kind.RETIRED)])
    assert directory.writer_of(7) == 3
    assert not directory.holds(7, 1)


def test_own_objects_and_requests_are_none_of_others_objects() -> None:
    directory = told([(7, ME, Kind.WRITTEN), (9, 1, Kind.HANDED_OVER), (9, 1, Kind.DECODED)])
    assert len(directory) == 0


NEWS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from([Kind.WRITTEN, Kind.RETIRED])), max_size=60
)


@given(NEWS)
def test_the_directory_holds_what_was_written_and_not_retired(news: News) -> None:
    held: dict[int, set[int]] = {}
    for key, rank, kind in news:
        if rank == ME:
            continue
        held.setdefault(key, set())
        if kind == Kind.WRITTEN:
            held[key].add(rank)
        else:
            held[key].discard(rank)
    directory = told(news)
    for key in range(5):
        writers = held.get(key, set())
        assert {rank for rank in range(5) if directory.holds(key, rank)} == writers
        found = directory.writer_of(key)
        assert found in writers if writers else found is None
    assert len(directory) == sum(1 for writers in held.values() if writers)
