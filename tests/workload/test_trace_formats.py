"""The table of trace formats is the one place that says which there are."""

import re
from pathlib import Path

import pytest

from kvbench.config.load import parse_config
from kvbench.config.names import TRACE_FORMATS
from kvbench.errors import KvbenchError
from kvbench.workload.traces.formats import FORMATS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "workloads.md"


def test_a_configuration_may_name_what_is_in_the_table_and_nothing_else() -> None:
    assert list(FORMATS) == TRACE_FORMATS
    for name in ("auto", *FORMATS):
        parse_config({"workload": {"kind": "trace", "path": "x", "format": name}, "pacing": {"mode": "asap"}}, "it")
    with pytest.raises(KvbenchError) as caught:
        parse_config({"workload": {"kind": "trace", "path": "x", "format": "moncake"}}, "it")
    known = "auto, mooncake, azure, burstgpt, sharegpt, deltas, agentic, bailian, messages, lmcache, baseten, kvbench"
    assert f'workload.format: expected one of {known} (given: "moncake"): did you' in str(caught.value)


def test_the_page_lists_what_is_in_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    section = text.partition("\n## Traces\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(FORMATS)
    (choices,) = re.findall(r"^\| `workload.format` \|.*\| ([^|]*) \|$", text, re.MULTILINE)
    assert re.findall(r"`(\w+)`", choices) == ["auto", *FORMATS]
