"""Lines of Azure's tables that are read together mean what they mean one by one, right or wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvbench.errors import KvbenchError
from kvbench.workload.traces import many_lines, read_trace

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
LINES = [
    *("2024-05-10 00:00:00+00:00,10,1", "2024-05-10 00:00:00.009930+00:00,11,2", "2024-05-10T00:00:01.5Z,10000000,0"),
    *("2024-05-10 02:00:02+02:00,12,3", "2024-05-10 00:00:02.123456789,12,3", "2024-05-10 00:00:00,1,1"),
    *("2024-02-30 00:00:00,1,1", "2024-05-10 00:00:03,0,1", "2024-05-10 00:00:03,10000001,1", "oops", "1,2"),
    *(
        "2024-05-10 00:00:03,1,10000001",
        "2250-01-01 00:00:00,5,5",
        "9999-01-01 00:00:00,5,5",
        "0001-01-01 00:00:00,5,5",
    ),
    *(' 2024-05-10 00:00:04 , 5 ,"6"', "2024-05-10 00:00:05,99999999999,1", "2024-05-10 00:00:06,5,-1", ""),
]


def outcome(path: Path, skip: bool) -> tuple[object, ...]:
    """Everything about the trace, or the message."""
    try:
        trace = read_trace(path, "azure", skip_bad_lines=skip)
    except KvbenchError as error:
        return (str(error),)
    arrays, rest = trace.to_arrays()
    return (*(array.tolist() for array in arrays), *((array.dtype.str, array.shape) for array in arrays), rest)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    lines=st.lists(st.one_of(st.sampled_from(LINES[:6]), st.sampled_from(LINES)), max_size=12),
    together=st.integers(1, 5),
    skip=st.booleans(),
)
def test_lines_read_together_are_those_read_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], together: int, skip: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "table.csv"
    path.write_text("\n".join([HEADER, *lines]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many_lines, "_LINES", together)
        many = outcome(path, skip)
        patch.setattr(many_lines, "_add_together", lambda *_: False)
        assert outcome(path, skip) == many


def test_plain_lines_are_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.csv"
    rows = [f"2023-11-16 18:{second // 60 % 60:02d}:{second % 60:02d}.9799600,{second + 1},9" for second in range(3000)]
    path.write_text("\r\n".join([HEADER, *rows]))
    taken: list[bool] = []
    add = many_lines._add_together

    def watched(*given: Any) -> bool:
        taken.append(add(*given))
        return taken[-1]

    monkeypatch.setattr(many_lines, "_add_together", watched)
    trace = read_trace(path)
    assert taken == [True]
    assert np.array_equal(trace.context_tokens, np.arange(1, 3001))
    assert trace.arrival_ns.tolist() == [second * 10**9 for second in range(3000)]
