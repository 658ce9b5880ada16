"""Whatever is done to a trace file: a trace whose figures can be true, or a KvbenchError that names the file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import fuzz, made, refused
from edits import EDITS, edited
from hypothesis import given
from hypothesis import strategies as st

from kvbench.errors import KvbenchError
from kvbench.workload.trace_info import trace_info
from kvbench.workload.trace_samples import write_samples
from kvbench.workload.traces import read_trace
from kvbench.workload.traces.formats import FORMATS
from kvbench.workload.traces.trace import MAX_TOKENS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    files = write_samples(tmp_path_factory.mktemp("samples"), np.random.default_rng(7))
    # The beginning is a trace too, but of the one list that ShareGPT is.
    contents = {name: path.read_bytes() for name, path in files.items()}
    return {name: content if name == "sharegpt" else content[:3000] for name, content in contents.items()}


@pytest.mark.parametrize("name", FORMATS)
@fuzz(25)
@given(edits=EDITS, skip=st.booleans(), told=st.booleans())
def test_damaged_traces_are_read_or_refused(
    samples: dict[str, bytes], tmp_path: Path, name: str, edits: list[Any], skip: bool, told: bool
) -> None:
    path = tmp_path / "trace"
    path.write_bytes(edited(samples[name], edits))
    made[f"trace, {name}"] += 1
    try:
        trace = read_trace(path, name if told else "auto", skip_bad_lines=skip)
    except KvbenchError as error:
        refused[f"trace, {name}"] += 1
        message = str(error)
    else:
        assert len(trace) > 0
        assert trace.context_tokens.min() > 0
        assert trace.context_tokens.max() <= MAX_TOKENS
        assert np.all(np.diff(trace.arrival_ns) >= 0)
        assert trace_info(trace).requests == len(trace)
        return
    assert str(path) in message
