"""Damage to files: random edits of their bytes, such as disks, transfers and people make."""

from hypothesis import strategies as st

EDIT = st.one_of(
    st.tuples(st.just("flip"), st.floats(0, 1, exclude_max=True), st.integers(0, 7)),
    st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
    st.tuples(st.just("overwrite"), st.floats(0, 1), st.binary(min_size=1, max_size=16)),
    st.tuples(st.just("insert"), st.floats(0, 1), st.binary(min_size=1, max_size=16)),
    st.tuples(st.just("remove"), st.floats(0, 1), st.integers(1, 64)),
    st.tuples(st.just("repeat"), st.floats(0, 1), st.integers(1, 4096)),
    st.tuples(st.just("zero"), st.floats(0, 1), st.integers(1, 4096)),
)
"""What to do, where (as a share of the file), and with what."""

EDITS = st.lists(EDIT, min_size=1, max_size=4)


def edited(content: bytes, edits: list[tuple[str, float, int | bytes]]) -> bytes:
    """`content` after all `edits`."""
    data = bytearray(content)
    for kind, where, what in edits:
        place = int(where * len(data))
        if kind == "cut":
            del data[place:]
        elif isinstance(what, bytes):
            data[place : place + (len(what) if kind == "overwrite" else 0)] = what
        elif kind == "flip" and place < len(data):
            data[place] ^= 1 << what
        elif kind == "remove":
            del data[place : place + what]
        elif kind == "repeat":
            data[place:place] = data[place : place + what]
        elif kind == "zero":
            data[place : place + what] = bytes(len(data[place : place + what]))
    return bytes(data)
