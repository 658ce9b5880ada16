"""Reading a configuration: what is understood, what each mistake is answered with, and the fingerprint."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from kvbench.config import sections
from kvbench.config.load import load_config, parse_config
from kvbench.config.models import shipped_model
from kvbench.config.run_config import PersonaWorkload, RunConfig, TraceWorkload
from kvbench.config.source import shipped_configs
from kvbench.errors import KvbenchError
from kvbench.records.schema import READ_PATHS, WRITE_PATHS, label
from kvbench.units import GIB

REPLAYS = {"agentic", "azure", "mooncake"}
"""Shipped configurations that need a trace."""
TRACE = "workload: {kind: trace, path: x.jsonl}\npacing: {mode: open}\n"


def load(folder: Path, text: str, *overrides: str) -> RunConfig:
    """The configuration that a file with this text gives."""
    file = folder / "run.yaml"
    file.write_text(text, encoding="utf-8")
    return load_config(str(file), overrides)


def complaint(folder: Path, text: str, *overrides: str) -> str:
    """What is said about a file with this text, without the file's name."""
    with pytest.raises(KvbenchError) as caught:
        load(folder, text, *overrides)
    return str(caught.value).removeprefix(f"{folder / 'run.yaml'}")


MISTAKES = {
    # text -> pattern of the answer
    "users: 4": r"unknown key users: did you mean workload\.users\? \(valid here: arrivals, cache, .*workload\)",
    "sed: 4": r"unknown key sed: did you mean seed\?",
    "1: 4": r"unknown key 1: ",
    "workload: {user: 4}": r"unknown key workload\.user: did you mean workload\.users\?",
    "workload: {mix: {robot: 1}}": r"unknown key workload\.mix\.robot: .*\(valid here: chatbot, coding, document\)",
    "tiers: [{kind: file, capacity: 1}]": r"unknown key tiers\.0\.capacity: did you mean tiers\.0\.capacity_bytes\?",
    "model: {layer: 1, kv_heads: 1, head_dim: 1}": r"unknown key model\.layer: did you mean model\.layers\?",
    "workload: {kind: trace, path: x, users: 1}": r"key workload\.users: it belongs to another kind of workload",
    "workload: {kind: trace}": r"missing key workload\.path: expected the trace file",
    "workload: {kind: tracee}": r"workload\.kind: expected one of personas, .*, sessions .*: did you mean trace\?",
    "workload: {mode: decod}": r'workload\.mode: expected one of .* \(given: "decod"\): did you mean decode\?',
    "tiers: [{kind: disk}]": r'tiers\.0\.kind: expected one of memory, gpu, file, object, null \(given: "disk"\)',
    "workload: 5": r"workload: expected a mapping of keys to values \(given: 5\)",
    "io:": r"io: expected a mapping of keys to values \(given: null\)",
    "tiers: {kind: file}": r"tiers: expected a list",
    "workload: {users: 0}": r"workload\.users: expected 1 or more \(given: 0\)",
    "workload: {users: 1.5}": r"workload\.users: expected a whole number \(given: 1\.5\)",
    "workload: {users: true}": r"workload\.users: expected a whole number \(given: true\)",
    "workload: {generation_ms_per_token: -1}": r"expected 0 or more, in milliseconds per token \(given: -1\)",
    "workload: {generation_ms_per_token: yes}": r"expected a number \(given: true\)",
    "workload: {decode_interval_tokens: few}": r'expected a whole number, in tokens \(given: "few"\)',
    "workload: {end_probability: 1.5}": r"workload\.end_probability: expected 1 or less \(given: 1\.5\)",
    "workload: {mix: {chatbot: 0}}": r"workload\.mix: it needs at least one persona with a weight above 0",
    "model: llama3-8b": r"model: unknown model 'llama3-8b': did you mean llama3\.1-8b\? \(known: .*\)",
    "model: 8": r"model: expected the name of a model, or a mapping with its geometry \(given: 8\)",
    "model: {layers: 0, kv_heads: 1, head_dim: 1}": r"model\.layers: expected 1 or more \(given: 0\)",
    "model: {layers: 1, kv_heads: 1}": r"model: a geometry needs kv_heads and head_dim, or kv_lora_rank and",
    "tiers: []": r"tiers: at least one tier is needed",
    "tiers: [{kind: memory}]": r"tiers\.0: a memory tier needs capacity_bytes, per rank, such as 4GiB",
    "tiers: [{kind: null}]": r"tiers\.0: a null tier needs capacity_bytes, per rank, such as 4GiB",
    "tiers: [{kind: 'null', capacity_bytes: 1GiB}, {kind: file}]": r"storage must be the last tier",
    "tiers: [{kind: file}, {kind: memory, capacity_bytes: 1}]": r"tiers: storage must be the last tier",
    "tiers: [{kind: file, capacity_bytes: 4gib}]": r"tiers\.0\.capacity_bytes: unknown unit .* did you mean GiB",
    "tiers: [{kind: file, capacity_bytes: -4}]": r"tiers\.0\.capacity_bytes: expected a size .*, or auto \(given: -4\)",
    "io: {io_bytes: 3MiB}": r'io\.io_bytes: expected a power of two from 4KiB to 4MiB \(given: "3MiB"\)',
    "io: {io_bytes: 8MiB}": r"io\.io_bytes: expected a power of two from 4KiB to 4MiB",
    "io: {io_bytes: 2KiB}": r"io\.io_bytes: expected a power of two from 4KiB to 4MiB",
    "io: {threads: 8, arena_bytes: 16MiB}": r"io\.arena_bytes: 8 threads need an arena of at least 32 MiB",
    "io: {threads: 2000}": r"io\.threads: expected 1024 or less \(given: 2000\)",
    "io: {drop_page_cache: maybe}": r'io\.drop_page_cache: expected true or false \(given: "maybe"\)',
    "calibration: {bytes: 2000000}": r"calibration\.bytes: expected a multiple of 4096, in bytes \(given: 2000000\)",
    "calibration: {seconds: 100}": r"calibration\.seconds: expected 60 or less, in seconds",
    "duration_s: 0": r"duration_s: expected more than 0, in seconds \(given: 0\)",
    "duration_s: 10x": r"duration_s: unknown unit of time 'x'",
    "duration_s: .inf": r"duration_s: expected a duration of 0 or more",
    "duration_s:": r"duration_s: personas never end; give the seconds to measure",
    "warmup_s: -1": r"warmup_s: expected a duration of 0 or more: seconds, .* \(given: -1\)",
    "pacing: {speedup: .nan}": r"pacing\.speedup: expected (a finite number|more than 0)",
    "pacing: {mode: open}": r"pacing\.requests_per_s: open loop with personas needs the arrival rate",
    "pacing: {requests_per_s: 3}": r"pacing\.requests_per_s: only open loop has an arrival rate",
    "pacing: {mode: open, requests_per_s: 0}": r"expected more than 0, in requests per second",
    "workload: {kind: trace, path: x}": r"pacing\.mode: it follows sessions",
    TRACE.replace("open}", "open, requests_per_s: 3}"): r"pacing\.requests_per_s: a trace has its own arrival times",
    "workload: {kind: trace, path: ''}": r"workload\.path: expected text that is not empty",
    "name: 5": r"name: expected text .* \(given: 5\)",
    "seed: -1": r"seed: expected 0 or more \(given: -1\)",
    "a: b: c": r", line 1, column 5: mapping values are not allowed here",
    "name: 2024-02-30": r": not valid YAML: day is out of range",
    "seed: 1\nname: x\nseed: 2": r", line 3, column 1: the key seed stands twice, first in line 1",
    "io:\n  threads: 1\n  threads: 2": r", line 3, column 3: the key threads stands twice, first in line 2",
    "- seed": r": expected a mapping of keys to values",
    "text": r": expected a mapping of keys to values",
}


@pytest.mark.parametrize(("text", "answer"), MISTAKES.items())
def test_a_mistake_is_answered_with_key_expectation_and_value(tmp_path: Path, text: str, answer: str) -> None:
    said = complaint(tmp_path, text)
    assert re.search(answer, said), said
    assert "\n" not in said
    for noise in ("Input should", "Value error", "function-", "[key]", "union_tag", "pydantic"):
        assert noise not in said


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    said = complaint(tmp_path, "seed: -1\nio: {threads: 0, iobytes: 3}")
    assert "seed: expected 0 or more" in said
    assert "io.threads: expected 1 or more" in said
    assert "unknown key io.iobytes: did you mean io.io_bytes?" in said


def test_the_message_starts_with_the_file_and_the_overrides(tmp_path: Path) -> None:
    said = complaint(tmp_path, "seed: 1", "io.threads=0")
    assert said.startswith(" --set io.threads=0: io.threads: expected 1 or more")


NOTHING = {
    "an empty file": "",
    "comments only": "# workload:\n#   users: 4\n",
    "an empty mapping": "{}",
    "a name alone": "name: mine",
    "all but the load and where it goes": "seed: 7\nduration_s: 10\nio: {threads: 4}\nmodel: tiny-1b",
    "an empty workload": "workload: {}",
}


@pytest.mark.parametrize("text", NOTHING.values(), ids=NOTHING.keys())
def test_a_file_that_chooses_neither_a_workload_nor_tiers_is_told_what_to_choose(tmp_path: Path, text: str) -> None:
    said = complaint(tmp_path, text)
    assert said.startswith(": nothing is chosen: give at least a workload, such as `workload: {users: 4}`, or tiers")
    assert "`kvbench configs`" in said
    for choice in ("workload.users=20", "tiers.0.kind=file", "workload={users: 4}"):
        load(tmp_path, text, choice)


def test_what_is_not_chosen_is_as_by_default(tmp_path: Path) -> None:
    assert load(tmp_path, "workload: {kind: personas}") == load(tmp_path, "tiers: [{kind: file}]") == RunConfig()


def test_sizes_and_durations_may_have_units(tmp_path: Path) -> None:
    config = load(tmp_path, "duration_s: 2min\nwarmup_s: 500ms\ntiers: [{kind: memory, capacity_bytes: 1.5GiB}]")
    assert (config.duration_s, config.warmup_s, config.tiers[0].capacity_bytes) == (120, 0.5, 3 * GIB // 2)


@pytest.mark.parametrize("thousand", ["1000", "1e3", "1E3", "1e+3", "1.0e3", "1.0e+3", "10e2", "100000e-2"])
def test_a_number_may_have_an_exponent_wherever_one_is_expected(tmp_path: Path, thousand: str) -> None:
    keys: tuple[str, ...] = (
        "workload.users",
        "seed",
        "io.threads",
        "io.arena_bytes",
        "duration_s",
        "workload.think_time_scale",
    )
    keys += ("model.layers", "tiers.0.capacity_bytes", "workload.mix.coding", "calibration.bytes")
    values = dict.fromkeys(keys, "1000") | {"io.arena_bytes": "4194304e3", "calibration.bytes": "4096e3"}
    told = [f"{key}={value.replace('1000', thousand)}" for key, value in values.items()]
    text = "model: {layers: 1, kv_heads: 1, head_dim: 8}\ntiers: [{kind: file}]\n"
    by_override = load(tmp_path, text, *told)
    assert by_override.workload.model_dump()["users"] == by_override.io.threads == by_override.seed == 1000
    assert (by_override.duration_s, by_override.tiers[0].capacity_bytes) == (1000, 1000)
    assert by_override.model_dump()["model"]["layers"] == 1000
    content = f"workload: {{users: {thousand}, think_time_scale: {thousand}, mix: {{coding: {thousand}}}}}"
    in_file = load(tmp_path, f"{content}\nduration_s: {thousand}\ntiers: [{{kind: file, capacity_bytes: {thousand}}}]")
    assert in_file.workload.model_dump()["users"] == in_file.workload.model_dump()["mix"]["coding"] == 1000
    assert (in_file.duration_s, in_file.tiers[0].capacity_bytes) == (1000, 1000)
    assert in_file.fingerprint(2) == load(
        tmp_path, content.replace(thousand, "1000"), "duration_s=1000", "tiers.0.capacity_bytes=1000"
    ).fingerprint(2)


def test_a_small_number_with_an_exponent_is_a_number_and_a_duration(tmp_path: Path) -> None:
    config = load(
        tmp_path, "tiers: [{kind: file}]", "duration_s=1e-3", "workload.end_probability=1e-3", "warmup_s=2.5e-1s"
    )
    assert (config.duration_s, config.warmup_s, config.workload.model_dump()["end_probability"]) == (0.001, 0.25, 0.001)


@pytest.mark.parametrize(
    ("setting", "answer"),
    [
        ("workload.users=1e-3", r'workload\.users: expected a whole number \(given: "1e-3"\)'),
        ("workload.users=1.5e0", r"workload\.users: expected a whole number"),
        ("seed=1.25e+1", r"seed: expected a whole number \(given: 12\.5\)"),
        ("io.threads=1e", r'io\.threads: expected a whole number \(given: "1e"\)'),
        ("seed=-1e3", r"seed: expected 0 or more"),
        ("seed=1e999", r"seed: expected less than 4\.29497e\+09 \(given: 10{150,200}\.\.\.\)"),
        ("seed=1e99999999", r"seed: expected a whole number"),
        ("io.io_bytes=1e-3", r"io\.io_bytes: expected a size that is a whole number of bytes"),
        ("pacing.speedup=1e999", r"pacing\.speedup: expected a finite number"),
        ("duration_s=1e999", r"duration_s: expected a duration of at most 1e\+09 seconds"),
    ],
)
def test_a_number_of_the_wrong_kind_is_refused_however_it_is_written(tmp_path: Path, setting: str, answer: str) -> None:
    said = complaint(tmp_path, "tiers: [{kind: file}]", setting)
    assert re.search(answer, said), said


def test_text_that_looks_like_a_number_stays_text(tmp_path: Path) -> None:
    assert load(tmp_path, "tiers: [{kind: file}]\nname: 1e9").name == "1e9"


def test_a_model_may_be_a_geometry(tmp_path: Path) -> None:
    config = load(tmp_path, "model: {layers: 2, kv_heads: 3, head_dim: 4, dtype: fp8}", "workload.users=1")
    assert config.geometry.bytes_per_token == 2 * 2 * 3 * 4


def test_a_file_that_cannot_be_read_is_answered_with_the_shipped_names(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for source, reason in (("nope", "No such file"), (str(tmp_path), "Is a directory"), ("binary.yaml", "")):
        with pytest.raises(KvbenchError, match=rf"cannot read configuration .*{reason}.*one of: agentic, .*quickstart"):
            load_config(str(tmp_path / source) if source == "binary.yaml" else source)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("seed=7", ("seed",), 7),
        ("workload.users=4", ("workload", "users"), 4),
        ("io.io_bytes=64KiB", ("io", "io_bytes"), 65536),
        ("duration_s=10s", ("duration_s",), 10.0),
        ("tiers.0.capacity_bytes=1GiB", ("tiers", 0, "capacity_bytes"), GIB),
        ("tiers=[{kind: memory, capacity_bytes: 1MiB}]", ("tiers", 0, "kind"), "memory"),
        ("model={layers: 1, kv_heads: 1, head_dim: 8}", ("model", "head_dim"), 8),
        ("workload.mix={coding: 2}", ("workload", "mix"), {"coding": 2.0}),
        ("workload.mix.coding=0", ("workload", "mix"), {"chatbot": 1.0, "coding": 0.0, "document": 1.0}),
    ],
)
def test_an_override_sets_one_key_whether_or_not_the_file_has_it(
    tmp_path: Path, override: str, key: tuple[str | int, ...], value: object
) -> None:
    chosen = "" if key[0] in ("workload", "tiers") else "tiers: [{kind: file}]\n"
    others = ("", "workload: {users: 3}\nio: {threads: 3}\n", "workload:\n" if key[0] == "workload" else "name: x\n")
    for text in others:
        found: Any = load(tmp_path, text + chosen, override).model_dump(mode="json")
        for part in key:
            found = found[part]
        assert found == value


def test_the_position_behind_the_last_extends_a_list(tmp_path: Path) -> None:
    text = "tiers: [{kind: memory, capacity_bytes: 1MiB}]"
    assert [tier.kind for tier in load(tmp_path, text, "tiers.1={kind: file}").tiers] == ["memory", "file"]
    assert [tier.kind for tier in load(tmp_path, text, "tiers.1.kind=file").tiers] == ["memory", "file"]


@pytest.mark.parametrize("word", ["null", "~", "'null'"])
def test_null_is_the_name_of_a_tier_with_and_without_quotes(tmp_path: Path, word: str) -> None:
    config = load(tmp_path, f"tiers: [{{kind: {word}, capacity_bytes: 1MiB}}]")
    assert [tier.kind for tier in config.tiers] == ["null"]
    assert not config.has_target
    assert not config.keeps_bytes


def test_later_overrides_win(tmp_path: Path) -> None:
    assert load(tmp_path, "tiers: [{kind: file}]\nseed: 1", "seed=2", "seed=3").seed == 3


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("seed", "expected KEY=VALUE, such as --set workload.users=4"),
        ("=3", "expected KEY=VALUE"),
        ("io.=3", "expected KEY=VALUE"),
        ("tiers.2.kind=file", "'2' is no position in a list: expected 0 to 1"),
        ("tiers.first=1", "'first' is no position in a list"),
        ("seed.x=1", "seed is 4, which has no keys; set it as a whole"),
        ("io.threads=[", r"--set io\.threads=\[, line 1"),
        ("io={threads: 1, threads: 2}", "the key threads stands twice"),
        ("io.thread=1", r"unknown key io\.thread: did you mean io\.threads\?"),
    ],
)
def test_an_override_that_leads_nowhere_is_quoted(tmp_path: Path, override: str, answer: str) -> None:
    said = complaint(tmp_path, "seed: 4", override)
    assert f"--set {override}" in said
    assert re.search(answer, said), said


def test_a_trace_is_found_from_the_file_that_names_it_or_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", "/home/someone")

    def path_of(*overrides: str) -> str:
        workload = load(tmp_path, TRACE, *overrides).workload
        assert isinstance(workload, TraceWorkload)
        return workload.path

    assert path_of() == str(tmp_path / "x.jsonl")
    assert path_of("workload.path=y.csv") == str(tmp_path / "here" / "y.csv")
    assert path_of("workload.path=/data/y.csv") == "/data/y.csv"
    assert path_of("workload.path=~/y.csv") == "/home/someone/y.csv"


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_configuration_is_valid_and_named_after_its_file(name: str) -> None:
    config = load_config(name, ["workload.path=trace"] if name in REPLAYS else [])
    assert config.name == name.replace("/", "-")


@pytest.mark.parametrize("name", sorted(REPLAYS))
def test_a_replay_needs_to_be_told_the_trace(name: str) -> None:
    with pytest.raises(KvbenchError, match=rf"{name}: missing key workload\.path: expected the trace file"):
        load_config(name)


def test_the_quickstart_fits_two_gib_of_disk() -> None:
    config = load_config("quickstart")
    storage = config.tiers[-1].capacity_bytes
    assert isinstance(storage, int)
    assert 2 * (storage + config.calibration.bytes) <= 2 * GIB


@pytest.mark.parametrize("name", shipped_configs())
def test_a_configuration_survives_being_sent_to_the_other_ranks(name: str) -> None:
    overrides = ["workload.path=trace"] if name in REPLAYS else ["model={layers: 1, kv_heads: 1, head_dim: 8}"]
    config = load_config(name, overrides)
    received = parse_config(json.loads(json.dumps(config.model_dump(mode="json"))), name)
    assert received == config
    assert received.fingerprint(4, "digest") == config.fingerprint(4, "digest")


def test_nothing_changes_after_it_was_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().seed = 3


def test_the_fingerprint_is_the_same_on_every_machine() -> None:
    # Changed these? Then runs of before and after cannot be compared: raise SCHEDULE_VERSION if the work changed, too.
    as_fast = sections.Pacing(mode="asap")
    trace, engine = (
        RunConfig(workload=TraceWorkload(kind="trace", path="/data/t", serving=serving), pacing=as_fast)
        for serving in ("reference", "engine")
    )
    assert RunConfig().fingerprint(ranks=2) == "dfd989dfe47dee66"
    assert trace.fingerprint(ranks=2, trace_digest="abc") == "0668ab261c852b14"
    assert engine.fingerprint(ranks=2, trace_digest="abc") == "e6f65ef5f15f9318"


def test_a_label_and_the_place_of_a_trace_are_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    a, b = (load(tmp_path, f"name: {name}\ntiers: [{{kind: file}}]") for name in ("a", "b"))
    assert a.fingerprint(2) == b.fingerprint(2)
    here, there = (load(tmp_path, TRACE, f"workload.path={path}") for path in ("/a/t", "/b/t"))
    assert here.fingerprint(2, "digest") == there.fingerprint(2, "digest")


def test_a_shipped_model_and_its_geometry_are_the_same_work() -> None:
    geometry = shipped_model("llama3.1-8b")
    assert RunConfig(model=geometry).fingerprint(2) == RunConfig(model="llama3.1-8b").fingerprint(2)


def test_a_size_is_the_same_work_in_any_unit(tmp_path: Path) -> None:
    texts = ("tiers: [{kind: file, capacity_bytes: 1GiB}]", "tiers: [{kind: file, capacity_bytes: 1073741824}]")
    assert len({load(tmp_path, text).fingerprint(2) for text in texts}) == 1


def test_what_decides_the_work_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    base = load(tmp_path, TRACE)
    changed = [
        "seed=1",
        "model=tiny-1b",
        "io.read_path=direct",
        "duration_s=1",
        "cache.layout=block",
        "workload.deal=prefix",
    ]
    fingerprints = [load(tmp_path, TRACE, change).fingerprint(2, "digest") for change in changed]
    fingerprints += [base.fingerprint(2, "digest"), base.fingerprint(3, "digest"), base.fingerprint(2, "other")]
    assert len(set(fingerprints)) == len(fingerprints)


def test_how_objects_lie_and_are_synced_is_part_of_the_fingerprint_where_it_is_not_as_usual(tmp_path: Path) -> None:
    usual = load(tmp_path, TRACE).fingerprint(2, "digest")
    as_usual = load(tmp_path, TRACE, "tiers.0.layout={kind: file, levels: 0}", "io.sync=object")
    assert as_usual.fingerprint(2, "digest") == usual
    others = ("layout.levels=1", "layout.levels=2", "layout.rename=true")
    changed = [f"tiers.0.{key}" for key in others] + ["io.sync=none", "io.sync=batch", "io.sync=end"]
    bucket = "tiers.0.layout={kind: bucket%s}"
    changed += [bucket % more for more in ("", ", bucket_bytes: 64MiB", ", garbage: 0.2")]
    fingerprints = {load(tmp_path, TRACE, change).fingerprint(2, "digest") for change in changed}
    assert len(fingerprints | {usual}) == len(changed) + 1


def test_what_buckets_alone_heed_does_not_change_the_fingerprint_of_files(tmp_path: Path) -> None:
    config = load(tmp_path, TRACE, "tiers.0.layout.levels=2")
    given = load(tmp_path, TRACE, "tiers.0.layout={levels: 2, bucket_bytes: 256MiB, garbage: 0.5}")
    assert given.fingerprint(2, "digest") == config.fingerprint(2, "digest")
    assert "bucket_bytes" in config.model_dump(mode="json")["tiers"][0]["layout"]


def test_the_engine_is_part_of_the_fingerprint_where_it_is_not_as_usual(tmp_path: Path) -> None:
    usual = load(tmp_path, TRACE).fingerprint(2, "digest")
    assert load(tmp_path, TRACE, "io.engine=sync", "io.nixl.backend=POSIX").fingerprint(2, "digest") == usual
    changes = [("io.engine=uring",), ("io.engine=nixl",), ("io.engine=nixl", "io.depth=8")]
    changes += [("io.engine=nixl", "io.nixl.backend=GDS"), ("io.engine=nixl", "io.nixl.options={use_uring: true}")]
    fingerprints = {load(tmp_path, TRACE, *change).fingerprint(2, "digest") for change in changes}
    assert len(fingerprints | {usual}) == len(changes) + 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("io.nixl.backend=GDS",), "io.nixl: says how NIXL moves bytes, and io.engine is sync; set io.engine to nixl"),
        (("io.engine=nixl", "io.read_path=numpy"), "io.read_path: with io.engine=nixl use buffered or direct"),
        (("io.engine=nixl", "io.nixl.backend=a/b"), "io.nixl.backend"),
        (("io.engine=nixl", "io.nixl.options={a b: 1}"), "io.nixl.options"),
        (("io.engine=nixl", "tiers.0.layout.kind=bucket"), "io.engine: nixl does not move what lies in buckets"),
        (("io.engine=nixl", "tiers.0={kind: memory, capacity_bytes: 1GiB}"), "moves what lies in files"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(tmp_path: Path, changes: tuple[str, ...], message: str) -> None:
    with pytest.raises(KvbenchError, match=re.escape(message)):
        load(tmp_path, TRACE, *changes)


def test_the_default_users_are_those_of_the_reference_workload() -> None:
    workload = RunConfig().workload
    assert isinstance(workload, PersonaWorkload)
    assert (workload.prefill_only_tokens, workload.decode_interval_tokens) == (10_000, 32)
    assert (workload.end_probability, workload.max_turns, RunConfig().seed) == (0.2, 50, 42)


def test_the_paths_that_may_be_configured_are_those_that_rows_know() -> None:
    assert list(get_args(sections.ReadPath)) == [label(path) for path in READ_PATHS]
    assert list(get_args(sections.WritePath)) == [label(path) for path in WRITE_PATHS]
