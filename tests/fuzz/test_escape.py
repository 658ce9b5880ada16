"""Nothing that a trace, a configuration or a run file says becomes a path: what is written is what the user named."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from synthetic import synthetic_run

from kvbench.tiers.file.naming import MOST_LEVELS, Naming, is_name_of_folder, is_name_of_object

pytestmark = pytest.mark.slow

WATCHED = Path(__file__).parent / "programs" / "watched.py"
HOSTILE = "../../../escaped\x1b]0;owned\x07\n/etc/passwd"

ELSEWHERE = re.compile(
    r"\d+|/dev/(null|tty)|/proc/.*|/(var/tmp|dev/shm)/kvbench-[0-9a-f-]+-rank-0\.spill|.*\.pyc(\.\d+)?"
)
"""What Python and kvbench may open for writing besides: no names that come from an input."""


def touched(folder: Path, *words: object) -> list[Path]:
    """Every path that a command was about to change; fails where it executes something or reads a pickle."""
    ended = subprocess.run(
        [sys.executable, WATCHED, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("[")]
    assert lines, "the watcher saw nothing"
    assert {event for event, _ in lines} <= {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
    assert "\x1b" not in ended.stdout + ended.stderr
    return [Path(os.path.normpath(folder / path)) for _, path in lines if not ELSEWHERE.fullmatch(path)]


def trace(kind: str, path: Path) -> Path:
    """A trace every free field of which is a path."""
    if kind == "sharegpt":
        turns = [{"from": who, "value": HOSTILE * 20} for who in ("human", "gpt") * 3]
        path.write_text(json.dumps([{"id": HOSTILE, "conversations": turns}]))
    else:
        row = {
            "timestamp": 0,
            "input_length": 1024,
            "output_length": 5,
            "hash_ids": [2**64 - 1, -(2**63)],
            "id": HOSTILE,
        }
        path.write_text("".join(json.dumps(row | {"timestamp": time, HOSTILE: HOSTILE}) + "\n" for time in range(5)))
    return path


@pytest.mark.parametrize("kind", ["mooncake", "sharegpt"])
def test_a_run_writes_only_where_it_was_told(tmp_path: Path, kind: str) -> None:
    config = {
        "name": HOSTILE,
        "model": {"layers": 1, "kv_heads": 1, "head_dim": 8},
        "workload": {"kind": "trace", "path": str(trace(kind, tmp_path / "trace"))},
        "pacing": {"mode": "asap"},
        "tiers": [{"kind": "file", "capacity_bytes": "4MiB"}],
        "cache": {"layout": "block", "block_tokens": 512},
        "io": {"threads": 2, "arena_bytes": "8MiB"},
        "calibration": {"seconds": 0},
        "duration_s": None,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    tested, out = tmp_path / "deep" / "below" / "tested", tmp_path / "deep" / "below" / "out"
    tested.mkdir(parents=True)
    out.mkdir()
    paths = touched(tmp_path, "run", tmp_path / "config.yaml", "--dir", tested, "--out", out / "run.h5")
    inside = re.compile(
        rf"{tested}/kvbench-[0-9a-f-]+(\.probe-\d+|/\.kvbench-run|/rank-0(/.*)?)?|{out}(/run.*\.h5(\.partial)?)?"
        # How `tempfile` finds out whether it may write there.
        rf"|{tmp_path}/[a-z0-9_]{{8}}"
        # Opened below a directory's descriptor, which the interpreter does not tell: it is looked for afterwards.
        rf"|{tmp_path}/\.kvbench-run"
    )
    assert [path for path in paths if not inside.fullmatch(str(path))] == []
    assert {str(path) for path in tmp_path.rglob("*escaped*")} == set()
    assert not (tmp_path / ".kvbench-run").exists()
    assert [path.name for path in out.iterdir()] == ["run.h5"]
    assert not list(tested.iterdir())


def test_a_report_writes_only_where_it_was_told(tmp_path: Path) -> None:
    run = synthetic_run(np.random.default_rng(1), ranks=2, nodes=1, operations=60)
    names = ("run_id", "model", "status", "status_message", "fingerprint", "started_at", "timer", "platform")
    tables = {
        "nodes": {**run.tables["nodes"], "host": [HOSTILE]},
        "ranks": {**run.tables["ranks"], "host": [HOSTILE] * 2},
    }
    attributes = dict.fromkeys(names, HOSTILE)
    attributes |= {"config_json": json.dumps({"name": HOSTILE}), "qos_classes_json": json.dumps([HOSTILE, "b", "c"])}
    attributes["tiers_json"] = json.dumps([{"name": HOSTILE, "kind": "memory"}, {"name": "<script>", "kind": "file"}])
    path = run.changed(attributes=attributes, tables=tables).write(tmp_path / "run.h5")
    out = tmp_path / "deep" / "below"
    out.mkdir(parents=True)
    paths = touched(tmp_path, "report", path, "-o", out / "page.html")
    named = re.compile(rf"{out}(/page(-\d+-\d+)?\.html(\.partial)?)?")
    assert [path for path in paths if not named.fullmatch(str(path))] == []
    assert (out / "page.html").exists()


@given(
    key=st.integers(0, 2**64 - 1),
    suffix=st.sampled_from([".kv", ".npy"]),
    levels=st.integers(0, MOST_LEVELS),
    width=st.integers(1, 4),
)
def test_an_object_is_a_file_of_sixteen_digits_whatever_its_key(key: int, suffix: str, levels: int, width: int) -> None:
    name = Naming(suffix, levels, width).name(key)
    assert re.fullmatch(rf"([0-9a-f]{{{width}}}/){{{levels}}}[0-9a-f]{{16}}\{suffix}", name)
    *folders, file = name.split("/")
    assert is_name_of_object(file)
    assert all(is_name_of_folder(folder) for folder in folders)
    assert file.startswith("".join(folders))
