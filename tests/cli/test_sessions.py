"""Made-up sessions as a user has them: planned, run, written as a trace, and fitted to one."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from every_command import SESSIONS
from kvbench_command import KVBENCH, QUICK, Command, Ended, column, overrides

from kvbench.cluster.launch.mpirun import Mpirun, mpirun_command, mpirun_environment
from kvbench.config.load import load_config
from kvbench.records.reader import open_run
from kvbench.records.schema import Op
from kvbench.workload.sessions import made_trace
from kvbench.workload.traces import read_trace

Call = Callable[..., Ended]
Start = Callable[..., Command]

SMALL = (
    "model={layers: 1, kv_heads: 1, head_dim: 16}",
    "workload.users=4",
    "workload.turns.first_tokens=2000",
    "workload.applications.prompt_tokens={0: 1000, 100: 1500}",
    "workload.context={limit_tokens: 20000, summary_tokens: 1000, rewrite_share: 0.05}",
    "workload.subagents.share=0.05",
    "workload.subagents.prompt_tokens=500",
    "workload.documents={share: 0.2, chunks: 20}",
    "workload.span_s=200",
)
BLOCK = 64 * 2 * 16 * 2
"""Bytes of 64 tokens of that model, which are whole sectors."""


def planned(kvbench: Call, *words: object) -> dict[str, Any]:
    ended = kvbench("plan", "sessions", *overrides(*SMALL), "--json", *words)
    assert ended.code == 0, ended.err
    figures: dict[str, Any] = json.loads(ended.out)
    return figures


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "pacing"),
    [
        (1, "asap"),
        *(
            pytest.param(ranks, *pacing, marks=pytest.mark.slow)
            for ranks, *pacing in [(2, "open"), (4, "asap"), (4, "open")]
        ),
    ],
)
def test_a_run_does_what_was_planned(start_run: Start, kvbench: Call, tmp_path: Path, ranks: int, pacing: str) -> None:
    more = (*SMALL, f"pacing.mode={pacing}", "pacing.speedup=100", "tiers=[{kind: file, capacity_bytes: 3MiB}]")
    quick = (*QUICK, "duration_s=null", "io.threads=2", "payload.verify=full")
    run = start_run(*more, *quick, config="sessions", options=("--ranks", ranks) if ranks > 1 else ())
    ended = run.ended()
    assert ended.code == 0, ended.err
    figures = planned(kvbench, *overrides(*more, *quick), "--ranks", ranks)
    file = tmp_path / "run.h5"
    assert column(file, "requests/hit_objects").sum() == figures["prefix"]["hit_blocks"] > 0
    assert len(column(file, "requests/hit_objects")) == figures["requests"]
    ops, nbytes = column(file, "records/op"), column(file, "records/nbytes")
    assert nbytes[ops == Op.READ].sum() == figures["prefix"]["hit_blocks"] * BLOCK
    assert nbytes[ops == Op.WRITE].sum() == figures["tiers"][0]["written_bytes"]
    attributes = open_run(file).attributes
    assert attributes["trace_source"] == "synthetic sessions"
    assert attributes["fingerprint"] == figures["fingerprint"]


@pytest.mark.slow
def test_turns_that_wait_for_answers_are_all_asked(start_run: Start, kvbench: Call, tmp_path: Path) -> None:
    more = (*SMALL, "pacing.mode=closed", "pacing.speedup=1000", "tiers=[{kind: file, capacity_bytes: 8MiB}]")
    quick = (*QUICK, "duration_s=null", "io.threads=2", "payload.verify=full")
    ended = start_run(*more, *quick, config="sessions").ended()
    assert ended.code == 0, ended.err
    figures = planned(kvbench, *overrides(*more, *quick))
    assert len(column(tmp_path / "run.h5", "requests/hit_objects")) == figures["requests"]
    tokens = column(tmp_path / "run.h5", "requests/context_tokens")
    assert tokens.sum() == figures["input_tokens"]


@pytest.mark.slow
def test_ranks_of_a_launcher_make_the_sessions_that_one_process_makes_for_them(
    start: Start, mpirun: Mpirun, kvbench: Call
) -> None:
    words = ("plan", "sessions", *overrides(*SMALL), "--json", "--capacities", "1MiB:16MiB:4", "--policy", "lru")
    launched = (*mpirun_command(mpirun, 3), *KVBENCH, *words)
    together = start(*launched, environment=mpirun_environment(mpirun, {})).ended()
    assert together.code == 0, together.err
    alone = kvbench(*words, "--ranks", 3)
    assert json.loads(together.out) == json.loads(alone.out)
    assert json.loads(alone.out)["ranks"] == 3


def test_what_was_generated_is_planned_as_what_generates_it(kvbench: Call, tmp_path: Path) -> None:
    out = tmp_path / "made.parquet"
    ended = kvbench("trace", "generate", "sessions", *overrides(*SMALL), "-o", out)
    trace = made_trace(load_config("sessions", SMALL), 1)
    assert (ended.code, ended.out) == (
        0,
        f"{out} holds {len(trace)} requests of 1 rank of sessions, digest {trace.digest}\n",
    )
    read = read_trace(out)
    assert read.digest == trace.digest
    replayed = kvbench("plan", "agentic", *overrides(SMALL[0], f"workload.path={out}"), "--json")
    assert replayed.code == 0, replayed.err
    made = planned(kvbench, *overrides("duration_s=null"))
    for same in ("requests", "input_tokens", "output_tokens", "blocks", "prefix", "full_blocks"):
        assert json.loads(replayed.out)[same] == made[same]
    assert made["prefix"]["hit_blocks"] > 0


def test_ranks_have_more_users_and_share_system_prompts(kvbench: Call) -> None:
    alone, more = planned(kvbench), planned(kvbench, "--ranks", 3)
    assert more["requests"] > 2 * alone["requests"]
    assert more["fingerprint"] != alone["fingerprint"]


def test_a_shorter_run_has_fewer_requests(kvbench: Call) -> None:
    short = planned(kvbench, *overrides("duration_s=100"))
    assert short["requests"] < planned(kvbench)["requests"]
    assert short["span_s"] <= 100 < planned(kvbench)["span_s"] <= 200
    assert planned(kvbench, *overrides("pacing.mode=asap"))["span_s"] is None


def test_datasize_knows_what_sessions_need(kvbench: Call) -> None:
    ended = kvbench("datasize", "sessions", *overrides(*SMALL), "--json", "--ranks", 2)
    assert ended.code == 0, ended.err
    needed = json.loads(ended.out)
    figures = planned(kvbench)
    assert needed["demand"]["requests"] == figures["requests"]
    assert needed["demand"]["written_bytes"] == figures["tiers"][0]["written_bytes"]


def test_a_fit_prints_parameters_and_distances_and_writes_what_plan_takes(kvbench: Call, tmp_path: Path) -> None:
    out, picture = tmp_path / "fitted.yaml", tmp_path / "fit.png"
    ended = kvbench("trace", "fit", SESSIONS, "-o", out, "--plot", picture)
    assert ended.code == 0, ended.err
    assert f"sessions fitted to {SESSIONS}" in ended.out
    assert re.search(r"workload\.turns\.new_tokens +\{0: ", ended.out)
    assert re.search(r"found by prefix, nothing evicted: \d\d\.\d\d% of blocks, made up \d\d\.\d\d%", ended.out)
    assert picture.read_bytes().startswith(b"\x89PNG")
    figures = json.loads(kvbench("trace", "fit", SESSIONS, "--json").out)
    # JSON has text alone for keys.
    written = json.loads(json.dumps(yaml.safe_load(out.read_text())["workload"]))
    for key, value in figures["parameters"].items():
        section, _, name = key.rpartition(".")
        assert (written[section] if section else written)[name] == value
    recorded = figures["likeness"]["curve"]["recorded"]
    assert recorded == sorted(recorded)
    assert figures["likeness"]["requests"] == len(read_trace(SESSIONS))
    assert kvbench("plan", out).code == 0


@pytest.mark.slow
def test_a_fit_of_what_was_made_up_is_near_it(kvbench: Call, tmp_path: Path) -> None:
    made = tmp_path / "made.parquet"
    alone = ("workload.subagents.share=0", "workload.documents.share=0", "workload.sessions_per_user=1")
    small = (*SMALL, "workload.users=40", "workload.span_s=20000", *alone)
    assert kvbench("trace", "generate", "sessions", *overrides(*small), "-o", made).code == 0
    likeness = json.loads(kvbench("trace", "fit", made, "--json").out)["likeness"]
    distances = {one["name"]: one["distance"] for one in likeness["compared"]}
    assert set(distances) == {
        *("context", "new in a turn", "answer", "turns of a session", "gap before a turn", "found by prefix")
    }
    assert max(distances[name] for name in ("answer", "gap before a turn", "turns of a session")) < 0.1
    curve = likeness["curve"]
    off = np.abs(np.mean(curve["made_up"], axis=0) - curve["recorded"])
    assert off.max() < 0.15
    assert abs(np.mean(curve["made_up_unlimited"]) - curve["recorded_unlimited"]) < 0.03


def test_what_is_no_session_is_not_generated(kvbench: Call, tmp_path: Path) -> None:
    ended = kvbench("trace", "generate", "smoke", "-o", tmp_path / "out.parquet")
    assert ended.code == 1
    assert ended.messages == [
        "kvbench: smoke: only sessions are made up as a trace, and workload.kind is personas: set it to sessions"
    ]


def test_sessions_without_an_end_are_refused(kvbench: Call) -> None:
    ended = kvbench("plan", "sessions", "--set", "duration_s=null")
    assert ended.code == 1
    assert "workload.span_s: sessions have no end where duration_s is null; give one of them" in ended.err


def test_blocks_that_do_not_fit_the_names_are_refused(kvbench: Call) -> None:
    ended = kvbench("plan", "sessions", *overrides(*SMALL, "cache.block_tokens=48"))
    assert ended.code == 1
    assert "use a multiple or a divisor of 64" in ended.err
    for block in (16, 512):
        assert kvbench("plan", "sessions", *overrides(*SMALL, f"cache.block_tokens={block}")).code == 0
