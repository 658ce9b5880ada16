"""Whatever a trace file holds, reading it gives a trace or a KvbenchError that names the file."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvbench.errors import KvbenchError
from kvbench.workload.traces import Trace, read_trace
from kvbench.workload.traces.formats import FORMATS
from kvbench.workload.traces.tables import AZURE, BURSTGPT


def written(folder: Path, content: bytes) -> Path:
    path = folder / "trace"
    path.write_bytes(content)
    return path


def read_or_message(path: Path, trace_format: str, *, skip: bool) -> Trace | str:
    """The trace, or the message of the only kind of error that reading may raise."""
    try:
        return read_trace(path, trace_format, skip_bad_lines=skip)
    except KvbenchError as error:
        return str(error)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300), skip=st.booleans())
def test_arbitrary_bytes_raise_nothing_but_kvbench_errors(
    tmp_path: Path, name: str, content: bytes, skip: bool
) -> None:
    header = {"azure": AZURE.header + "\n", "burstgpt": BURSTGPT.header + "\n"}.get(name, "").encode()
    path = written(tmp_path, header + content)
    for trace_format in (name, "auto"):
        read = read_or_message(path, trace_format, skip=skip)
        assert str(path) in read if isinstance(read, str) else len(read) > 0


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_samples_raise_nothing_but_kvbench_errors(
    tmp_path: Path, samples: dict[str, Path], name: str, data: st.DataObject
) -> None:
    content = bytearray(samples[name].read_bytes()[:1500])
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        length = data.draw(st.integers(0, 20))
        content[start : start + length] = data.draw(st.binary(max_size=8))
    path = written(tmp_path, bytes(content))
    for skip in (False, True):
        read = read_or_message(path, name, skip=skip)
        assert str(path) in read if isinstance(read, str) else (read.context_tokens > 0).all()


JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["from", "value"]), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=st.dictionaries(st.sampled_from(["timestamp", "input_length", "output_length", "hash_ids"]), JSON_VALUE))
def test_any_json_in_place_of_a_mooncake_line_is_read_or_a_kvbench_error(
    tmp_path: Path, row: dict[str, object]
) -> None:
    read = read_or_message(written(tmp_path, json.dumps(row).encode()), "mooncake", skip=False)
    assert "line 1: " in read if isinstance(read, str) else len(read) == 1


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(talks=st.lists(JSON_VALUE | st.fixed_dictionaries({"conversations": JSON_VALUE}), max_size=3))
def test_any_json_in_place_of_conversations_is_read_or_a_kvbench_error(tmp_path: Path, talks: list[object]) -> None:
    path = written(tmp_path, json.dumps(talks).encode())
    read = read_or_message(path, "sharegpt", skip=True)
    assert str(path) in read if isinstance(read, str) else len(read) > 0
