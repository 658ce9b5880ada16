"""A trace in memory: cut, sent between ranks and told apart by its digest."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvbench.config.run_config import TraceWorkload
from kvbench.workload.traces import Trace, load_trace, read_trace


def same(one: Trace, other: Trace) -> bool:
    arrays, rest = one.to_arrays()
    other_arrays, other_rest = other.to_arrays()
    return rest == other_rest and all(np.array_equal(a, b) for a, b in zip(arrays, other_arrays, strict=True))


def test_the_digest_is_of_the_content_and_not_of_the_file(samples: dict[str, Path], tmp_path: Path) -> None:
    def written(content: bytes) -> Path:
        path = tmp_path / "trace"
        path.write_bytes(content)
        return path

    content = samples["azure"].read_bytes()
    original = read_trace(samples["azure"])
    unix = read_trace(written(content.replace(b"\r\n", b"\n") + b"\n"))
    assert unix.digest == original.digest
    last_row_changed = read_trace(written(content + b"1"))
    assert last_row_changed.digest != original.digest


@pytest.mark.parametrize("name", ["mooncake", "azure", "burstgpt", "sharegpt"])
def test_a_trace_survives_being_sent_as_arrays(samples: dict[str, Path], name: str) -> None:
    trace = read_trace(samples[name])
    arrays, rest = trace.to_arrays()
    assert all(isinstance(array, np.ndarray) for array in arrays)
    assert same(Trace.from_arrays(arrays, rest), trace)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(positions=st.lists(st.integers(0, 59), max_size=20))
def test_taking_requests_keeps_everything_about_each(samples: dict[str, Path], positions: list[int]) -> None:
    trace = read_trace(samples["mooncake"])
    part = trace.take(np.array(positions, np.int64))
    assert part.number.tolist() == positions
    for index, position in enumerate(positions):
        assert part.ids(index).tolist() == trace.ids(position).tolist()
        assert part.arrival_ns[index] == trace.arrival_ns[position]
        assert part.context_tokens[index] == trace.context_tokens[position]


def test_max_requests_takes_the_first_of_the_trace(samples: dict[str, Path]) -> None:
    def loaded(most: int | None) -> Trace:
        return load_trace(TraceWorkload(kind="trace", path=str(samples["mooncake"]), max_requests=most))

    whole = loaded(None)
    assert same(loaded(10), whole.take(np.arange(10)))
    assert same(loaded(1000), whole)
