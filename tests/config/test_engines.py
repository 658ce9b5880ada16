"""Twins of engines: what they decide, what wins over them, and what is refused."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from kvbench.config.engines import GOVERNED, overlay, read_engine, shipped_engines
from kvbench.config.load import load_config
from kvbench.config.run_config import RunConfig
from kvbench.config.source import read_yaml
from kvbench.errors import KvbenchError

ENGINES = Path(__file__).parents[2] / "configs" / "engines"


def loaded(engine: str = "", *overrides: str, source: str = "conversations") -> RunConfig:
    return load_config(source, overrides, engine)


@pytest.mark.parametrize("name", shipped_engines())
def test_a_shipped_twin_is_a_whole_behaviour_and_says_what_it_is_made_from(name: str) -> None:
    content = read_yaml((ENGINES / f"{name}.yaml").read_text(encoding="utf-8"), name)
    assert {"block_tokens", "partial_blocks", "lookup", "write"} <= set(content["cache"])
    if content.get("tier") == "object":
        usual = {"read_path", "write_path", "io_bytes", "engine", "nixl", "sync"}
    else:
        usual = {"engine", "depth"} if "engine" not in content["io"] else set()
        if content["io"].get("engine") != "nixl":
            usual.add("nixl")
    assert set(content["io"]) == set(GOVERNED["io"]) - usual
    twin, engine = read_engine(name)
    assert all((twin.package, twin.version, twin.part, engine.differences))
    assert loaded(name).twin == twin


@pytest.mark.parametrize("name", shipped_engines())
@pytest.mark.parametrize("source", ["sessions", "agentic"])
def test_every_twin_serves_every_load_that_is_served_as_an_engine_does(name: str, source: str) -> None:
    config = loaded(name, *(("workload.path=trace",) if source == "agentic" else ()), source=source)
    assert config.twin is not None
    assert config.twin.name == name


def test_a_twin_decides_over_the_file_and_an_override_over_the_twin() -> None:
    config = loaded("vllm-fs")
    assert (config.io.read_path, config.io.threads, config.cache.block_tokens) == ("direct", 32, 16)
    assert (config.tiers[-1].layout.levels, config.tiers[-1].capacity_bytes) == (2, 4 << 30)
    assert config.pacing.most_requests == loaded().pacing.most_requests
    config = loaded("vllm-fs", "io.threads=3", "cache.block_tokens=64", "tiers.0.layout.levels=1")
    assert (config.io.threads, config.io.read_path, config.cache.block_tokens) == (3, "direct", 64)
    assert (config.tiers[-1].layout.levels, config.tiers[-1].layout.rename) == (1, True)


@pytest.mark.parametrize(
    ("overrides", "levels"),
    [
        (("tiers=[{kind: file, layout: {levels: 3}}]",), 3),
        (("tiers=[{kind: file}]",), 2),
        (("tiers.0={kind: file}",), 2),
        (("tiers.0.layout={levels: 4}",), 4),
    ],
)
def test_a_layout_that_was_said_stays(overrides: Sequence[str], levels: int) -> None:
    assert loaded("vllm-fs", *overrides).tiers[-1].layout.levels == levels


def test_an_engine_that_keeps_objects_has_them_on_the_last_tier_whatever_files_would_have_lain_there() -> None:
    config = loaded("lmcache-s3", "tiers.0.capacity_bytes=2GiB")
    assert (config.tiers[-1].kind, config.tiers[-1].capacity_bytes) == ("object", 2 << 30)
    assert (config.io.depth, config.io.threads, config.io.max_concurrent_allocs) == (25, 4, 4)
    config = loaded("nixl-obj", "tiers.0={kind: object, capacity_bytes: 1GiB, retries: 2}", "io.depth=3")
    assert (config.tiers[-1].retries, config.io.depth, config.cache.lookup) == (2, 3, "stat")


def test_what_a_twin_leaves_out_has_its_default(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("twin: {package: mine, version: '1', part: all, checked: false}\nio: {threads: 5}\n")
    content = {"io": {"sync": "none", "threads": 9, "arena_bytes": "1GiB"}, "cache": {"lookup": "stat"}}
    overlay(content, str(own), ())
    assert content["io"] == {"threads": 5, "arena_bytes": "1GiB"}
    assert content["cache"] == {}
    assert content["twin"] == {"name": "own", "package": "mine", "version": "1", "part": "all", "checked": False}


def test_which_engine_it_is_a_twin_of_is_no_part_of_the_work() -> None:
    config = loaded("lmcache-disk")
    assert config.fingerprint(1) == config.model_copy(update={"twin": None}).fingerprint(1)
    assert config.fingerprint(1) != loaded().fingerprint(1)


@pytest.mark.parametrize(
    ("source", "engine", "overrides", "message"),
    [
        ("conversations", "wrong", (), "there are: hicache-file, lmcache-disk"),
        ("conversations", "missing.yaml", (), "cannot read it: No such file"),
        ("smoke", "vllm-fs", (), "have blocks that it could keep: sessions"),
        ("conversations", "vllm-fs", ("tiers=[{kind: null, capacity_bytes: 1GiB}]",), "it lies on a file tier"),
        ("conversations", "vllm-fs", ("tiers.0={kind: object, capacity_bytes: 1GiB}",), "it lies on a file tier"),
        ("conversations", "lmcache-s3", ("tiers.0={kind: file, capacity_bytes: 1GiB}",), "it lies on an object tier"),
        ("conversations", "lmcache-s3", ("tiers.0.kind=file",), "it lies on an object tier"),
    ],
)
def test_what_no_twin_can_serve_is_refused(source: str, engine: str, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(KvbenchError, match=message):
        load_config(source, overrides, engine)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("io: {threads: 5}", "missing key twin"),
        ("twin: {package: mine, version: '1', part: all, checked: maybe}", "twin.checked"),
        (
            "twin: {package: mine, version: '1', part: all, checked: true}\nio: {arena_bytes: 1GiB}",
            "io.arena_bytes is no",
        ),
        ("twin: {package: mine, version: '1', part: all, checked: true}\nlayout: {kind: heap}", "layout.kind"),
        (
            "twin: {package: mine, version: '1', part: all, checked: true}\ntier: object\nlayout: {levels: 1}",
            "layout: it is for files",
        ),
    ],
)
def test_a_twin_of_ones_own_is_read_with_care(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(KvbenchError, match=message):
        loaded(str(tmp_path / "own.yaml"))
