"""From results to a submission tree, which passes, and from trees to the table of results."""

import csv
import json
import re
import shutil
import tarfile
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from made_tree import SHA, STAMP, Made, Plan, edit, make_tree, write_json
from mutations import set_at
from published_tree import MODEL

from kvbench import __version__
from kvbench.commands.main import commands
from kvbench.errors import KvbenchError
from kvbench.mlperf.check.checker import check_tree
from kvbench.mlperf.check.results_table import COLUMNS
from kvbench.mlperf.package import source_copy
from kvbench.mlperf.package.package import package
from kvbench.mlperf.package.source_copy import copy_source
from kvbench.mlperf.package.system_description import describe
from kvbench.mlperf.rules import RULES
from kvbench.mlperf.rules.access import TO_FILL_IN
from kvbench.mlperf.tree.code_hash import HASH_NAME, code_files, image_hashes
from kvbench.mlperf.tree.description import description_of
from kvbench.mlperf.tree.document import read_document

LEAF = Path("kv_cache", MODEL, "run")


def results_of(made: Made, folder: Path, stamp: str = STAMP) -> Path:
    """What `kvbench mlperf run` leaves in its results directory; the source is the one that is installed."""
    place = folder / LEAF / stamp
    shutil.copytree(made.run, place)
    (place / made.summary.name).rename(place / "summary.json")
    write_json(place / f"kv_cache_{stamp}_metadata.json", {"benchmark_type": "kv_cache", "run_datetime": stamp})
    set_at(place / "kvbench_sequence.json", "git_sha", to=None)
    set_at(place / "kvbench_sequence.json", "kvbench_version", to=__version__)
    (place / "option_1" / ".trial_9.unfinished").mkdir()
    return folder


NO_PLOTS = ("kvbench.mlperf.package.report_pdf._plots", lambda path, name: ())


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(commands, ["mlperf", *map(str, words)])


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*NO_PLOTS)


@pytest.fixture(scope="module")
def packaged(clean: dict[str, Made], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of the closed and the open results, packaged by two commands; without plots, which take seconds."""
    folder = tmp_path_factory.mktemp("packaged")
    for division in ("closed", "open"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*NO_PLOTS)
            done = call("package", results_of(clean[division], folder / division), "-o", folder / "tree")
        assert done.exit_code == 0, done.output
        assert f"kvbench mlperf check {folder / 'tree' / 'acme'}" in done.output
    return folder / "tree" / "acme"


@pytest.mark.slow
def test_a_packaged_tree_passes(packaged: Path) -> None:
    verdict = check_tree(packaged)
    assert verdict.violations == ()
    assert len(list(verdict.tree.runs())) == 2


@pytest.mark.usefixtures("no_plots")
def test_a_packaged_rehearsal_breaks_nothing_but_that(tmp_path: Path) -> None:
    made = make_tree(tmp_path, Plan(rehearsal=True))
    (done,) = package(results_of(made, tmp_path / "results"), tmp_path / "tree")
    assert check_tree(done.root).broken == {"kvbenchRehearsal"}


def test_results_are_copied_as_they_are_but_for_hidden_files(packaged: Path, clean: dict[str, Made]) -> None:
    made = clean["closed"]
    copy = packaged / "closed/acme/results/big-box" / LEAF / STAMP
    files = {path.relative_to(made.run) for path in made.run.rglob("*") if path.is_file()}
    changed = {Path("kvbench_sequence.json"), Path(made.summary.name)}
    beside = {Path(name) for name in ("kvbench_sequence.json", "summary.json", ".mlps-code-image")}
    beside.add(Path(f"kv_cache_{STAMP}_metadata.json"))
    assert {path.relative_to(copy) for path in copy.rglob("*") if path.is_file()} == files - changed | beside
    for name in files - changed:
        assert (copy / name).read_bytes() == (made.run / name).read_bytes()


def test_the_description_has_what_was_found_and_marks_what_nobody_can_know(packaged: Path) -> None:
    text = (packaged / "closed/acme/systems/big-box.yaml").read_text(encoding="utf-8")
    description = yaml.safe_load(text)
    (node,) = description["clients"]["nodes"]
    assert (node["cpu_model"], node["cpus"], node["kernel"]) == ("Imaginary 9000", 16, "6.1.0")
    assert node["hosts"] == ["node-a"]
    assert node["memory"] == "64 GiB"
    (mount,) = description["storage"]["mounts"]
    assert (mount["filesystem"], mount["device"], mount["mount_options"]) == ("ext4", "/dev/vdb", "rw,relatime")
    assert node["network"] == description["storage"]["vendor"] == description["client_software"] == TO_FILL_IN
    assert "rehearsal" not in description


def test_nodes_that_are_alike_stand_once(clean: dict[str, Made]) -> None:
    sequence = json.loads(clean["closed"].sequence.read_text(encoding="utf-8"))
    node = sequence["nodes"][0]
    network = ["eth0 25000 Mb/s, MTU 9000"]
    nodes = [node, node | {"host": "node-b"}, node | {"host": "node-c", "cpus": 8, "network": network}]
    found = describe(sequence | {"nodes": nodes})["clients"]["nodes"]
    assert [(entry["hosts"], entry["cpus"], entry["network"]) for entry in found] == [
        (["node-a", "node-b"], 16, TO_FILL_IN),
        (["node-c"], 8, network),
    ]


@pytest.mark.slow
def test_the_pdf_has_figures_the_system_and_plots(packaged: Path, clean: dict[str, Made], tmp_path: Path) -> None:
    def pages_of(content: bytes) -> int:
        assert content.startswith(b"%PDF-")
        return len(re.findall(rb"/Type /Page\b", content))

    done = call("package", results_of(clean["closed"], tmp_path / "results"), "-o", tmp_path / "tree")
    assert done.exit_code == 0, done.output
    name = "closed/acme/systems/big-box.pdf"
    with_plots = pages_of((tmp_path / "tree/acme" / name).read_bytes())
    assert with_plots >= 5
    assert with_plots > pages_of((packaged / name).read_bytes())


@pytest.mark.usefixtures("no_plots")
def test_the_tree_is_not_made_in_the_results_that_it_is_made_of(clean: dict[str, Made], tmp_path: Path) -> None:
    results = results_of(clean["open"], tmp_path / "results")
    inside = results / LEAF / STAMP / "tree"
    done = call("package", results, "-o", inside)
    assert done.exit_code == 1
    assert "is in the results that the tree is to be made of: give another tree with -o" in done.output
    assert not inside.exists()


def image_in(root: Path) -> Path:
    (image,) = (root / "code-images").glob("code-*")
    return image


def test_the_code_is_one_image_of_the_source_that_every_leaf_points_at(packaged: Path) -> None:
    image = image_in(packaged)
    names = {path.relative_to(image).as_posix() for path in code_files(image)}
    assert {
        "kvbench/mlperf/package/package.py",
        "kvbench_analysis/tables/load.py",
        "kvbench_configs/mlperf/option-1.yaml",
    } <= names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]
    recorded = json.loads((image / HASH_NAME).read_text(encoding="utf-8"))
    assert (recorded["algorithm"], recorded["mlpstorage_version"]) == ("md5-tree-v2", f"kvbench {__version__}")
    assert recorded["git_sha"] is None
    assert image.name == f"code-{recorded['hash'][:8]}"
    assert set(image_hashes(image)) == {recorded["hash"]}, "whichever way directories are left out"
    pointers = [path.read_text(encoding="ascii") for path in packaged.rglob(".mlps-code-image")]
    assert pointers == [f"md5-tree-v2:{recorded['hash']}"] * 2
    marker = (packaged / "code-images/.mlps-image-pool").read_text(encoding="utf-8")
    assert [line.partition("=")[0] for line in marker.splitlines()] == ["mlpstorage_version", "migration_completed_at"]


@pytest.mark.usefixtures("no_plots")
def test_the_image_goes_to_a_pool_of_the_submitter_as_v3_0_was_published(
    clean: dict[str, Made], tmp_path: Path
) -> None:
    results = results_of(clean["open"], tmp_path / "results")
    done = call("package", results, "-o", tmp_path / "tree", "--pool", "submitter")
    assert done.exit_code == 0, done.output
    root = tmp_path / "tree/acme"
    assert sorted(path.name for path in root.iterdir()) == ["acme", "open"]
    assert (root / "acme/.mlps-image-pool").is_file()
    verdict = check_tree(root)
    assert verdict.violations == ()
    (image,) = (root / "acme").glob("code-*")
    shutil.rmtree(image)
    assert "codeImagePointer" in check_tree(root).broken


@pytest.mark.usefixtures("no_plots")
def test_a_submitter_called_as_a_division_has_no_pool_of_its_own(clean: dict[str, Made], tmp_path: Path) -> None:
    results = results_of(clean["open"], tmp_path / "results")
    set_at(results / LEAF / STAMP / "kvbench_sequence.json", "submitter", to="closed")
    with pytest.raises(KvbenchError, match="give --pool tree"):
        package(results, tmp_path / "tree", pool="submitter")
    assert not (tmp_path / "tree").exists()


def test_the_description_has_the_part_that_mlpstorage_defines(packaged: Path) -> None:
    read = description_of(read_document(packaged / "closed/acme/systems/big-box.yaml", as_yaml=True))
    (client,) = read.clients
    assert (client.title, client.quantity, client.cpu_model) == ("benchmark client", 1, "Imaginary 9000")
    assert client.memory_gib == 64
    assert client.cores is client.drives[0].count is None, "the number of processors is not that of cores"
    assert (read.servers[0].memory_gib, read.usable_capacity_tib) == (None, None)


def test_interfaces_stand_in_it_by_kind_and_speed(clean: dict[str, Made]) -> None:
    sequence = json.loads(clean["closed"].sequence.read_text(encoding="utf-8"))
    links = ["eth0 25000 Mb/s, MTU 9000", "eth1 25000 Mb/s, MTU 1500", "ib0 of unknown speed, MTU 2044"]
    node = sequence["nodes"][0] | {"network": [*links, "mlx5_0 port 1 200 Gb/sec (4X HDR)", "mlx4_0 port 1 2.5 Gb/sec"]}
    (client,) = describe(sequence | {"nodes": [node]})["system_under_test"]["clients"]
    assert [(one["type"], one["speed"], one["unit_count"]) for one in client["networking"]] == [
        ("ethernet", 25, 2),
        ("infiniband", TO_FILL_IN, 1),
        ("infiniband", 200, 1),
        ("infiniband", 2.5, 1),
    ]


def test_the_manifest_of_each_division_lists_its_leaves_systems_and_images(packaged: Path) -> None:
    digest = json.loads((image_in(packaged) / HASH_NAME).read_text(encoding="utf-8"))["hash"]
    for division in ("closed", "open"):
        manifest = yaml.safe_load((packaged / division / "acme/submission.yaml").read_text(encoding="utf-8"))
        assert (manifest["schema"], manifest["mode"]) == ("mlps-submission-manifest/1", division)
        (run,) = manifest["runs"]
        assert (run["leaf"], run["system"]) == (f"results/big-box/{LEAF}/{STAMP}", "big-box")
        assert manifest["code_images"] == [run["code_image"]] == [f"md5-tree-v2:{digest}"]
        assert manifest["systems"][0]["pdf"] == "systems/big-box.pdf"


@pytest.mark.slow
@pytest.mark.usefixtures("no_plots")
def test_another_system_is_added_to_the_manifest(clean: dict[str, Made], tmp_path: Path) -> None:
    for system in ("big-box", "small-box"):
        results = results_of(clean["closed"], tmp_path / system)
        set_at(results / LEAF / STAMP / "kvbench_sequence.json", "system", to=system)
        (done,) = package(results, tmp_path / "tree")
    manifest = yaml.safe_load((done.root / "closed/acme/submission.yaml").read_text(encoding="utf-8"))
    assert [run["system"] for run in manifest["runs"]] == ["big-box", "small-box"]
    assert len(manifest["code_images"]) == 1
    assert check_tree(done.root).violations == ()


def test_a_manifest_of_another_tool_is_left_as_it_is(clean: dict[str, Made], tmp_path: Path) -> None:
    path = tmp_path / "tree/acme/closed/acme/submission.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("schema: mlps-submission-manifest/1\ngenerated_by: mlpstorage 3.1\n", encoding="utf-8")
    with pytest.raises(KvbenchError, match="was not made by kvbench, and would not list what is added"):
        package(results_of(clean["closed"], tmp_path / "results"), tmp_path / "tree")
    assert list(path.parent.iterdir()) == [path]


def test_what_is_there_is_never_written_over(packaged: Path, clean: dict[str, Made], tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in packaged.rglob("*")}
    done = call("package", results_of(clean["closed"], tmp_path / "again"), "-o", packaged.parent)
    assert done.exit_code == 1
    assert "already there, and left as it is" in done.output
    assert "big-box.yaml" in done.output
    assert {path: path.stat().st_mtime_ns for path in packaged.rglob("*")} == before


@pytest.mark.usefixtures("no_plots")
def test_an_image_of_the_same_name_and_another_hash_is_not_replaced(
    packaged: Path, clean: dict[str, Made], tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(packaged / "code-images", tree / "acme/code-images")
    image = image_in(tree / "acme")
    set_at(image / HASH_NAME, "hash", to=image.name.removeprefix("code-") + "0" * 24)
    with pytest.raises(KvbenchError, match="is another image than that of the source of these results"):
        package(results_of(clean["closed"], tmp_path / "results"), tree)
    assert not (tree / "acme/closed").exists()


@pytest.mark.parametrize(
    ("lacking", "named"),
    [
        (lambda run: shutil.rmtree(run / "option_2" / "trial_3"), "option 2, trial 3 has no results"),
        (lambda run: shutil.rmtree(run / "option_3/trial_1/rank_1"), "option 3, trial 1 has no result of rank 1"),
        (lambda run: (run / "summary.json").unlink(), "no summary.json"),
        (lambda run: (run / "summary.json").rename(run / "kvcache_run_summary_1.json"), "an earlier kvbench, which"),
        (lambda run: (run / f"kv_cache_{STAMP}_metadata.json").unlink(), "0 metadata files, not one"),
        (
            lambda run: set_at(run / "kvbench_sequence.json", "options", 0, "trials", 1, "status", to="failed"),
            "option 1, trial 2 is failed",
        ),
        (lambda run: edit(run / "kvbench_sequence.json", lambda s: s["options"].pop()), "option 3 was not run"),
    ],
    ids=["trial", "rank", "summary", "old", "metadata", "failed", "option"],
)
def test_incomplete_results_are_refused_with_what_they_lack(
    clean: dict[str, Made], tmp_path: Path, lacking: object, named: str
) -> None:
    results = results_of(clean["closed"], tmp_path / "results")
    assert callable(lacking)
    lacking(results / LEAF / STAMP)
    with pytest.raises(KvbenchError, match=re.escape(named)):
        package(results, tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


@pytest.mark.usefixtures("no_plots")
def test_one_sequence_of_several_can_be_chosen(clean: dict[str, Made], tmp_path: Path) -> None:
    results = results_of(clean["closed"], tmp_path / "results")
    results_of(clean["closed"], results, "20260105_000000")
    shutil.rmtree(results / LEAF / STAMP / "option_1")
    (done,) = package(results, tmp_path / "tree", stamps=["20260105_000000"], records=False)
    assert [path.name for path in done.parts if path.name.startswith("2026")] == ["20260105_000000"]
    assert not list(done.root.rglob("*.h5"))
    assert check_tree(done.root).violations == ()
    with pytest.raises(KvbenchError, match="no sequence 20260106_000000"):
        package(results, tmp_path / "other", stamps=["20260106_000000"])


def test_results_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KvbenchError, match=r"has no kvbench_sequence\.json"):
        package(tmp_path, tmp_path / "tree")


def test_the_source_of_another_version_is_not_to_be_had(tmp_path: Path) -> None:
    with pytest.raises(KvbenchError, match=r"kvbench 9\.9.*2\.1\.6 codeDirectoryContents"):
        copy_source(tmp_path / "code", "9.9", None)


def test_a_commit_that_is_nowhere_is_not_replaced_by_another(tmp_path: Path) -> None:
    with pytest.raises(KvbenchError, match=rf"commit {SHA}.*2\.1\.6 codeDirectoryContents"):
        copy_source(tmp_path / "code", __version__, SHA)
    assert not (tmp_path / "code").exists()


@pytest.mark.parametrize("filters", [True, False])
def test_the_commit_that_ran_is_taken_from_the_checkout(
    tmp_path: Path, filters: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not filters:
        # As Python before 3.11.4 is.
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
        unpack = tarfile.TarFile.extractall

        def without_filter(tar: tarfile.TarFile, path: Path) -> None:
            unpack(tar, path)

        monkeypatch.setattr(tarfile.TarFile, "extractall", without_filter)
    head = source_copy.head_of_checkout()
    if head is None:
        pytest.skip("kvbench does not run from a git checkout here")
    copy_source(tmp_path / "code", __version__, head)
    recorded = json.loads((tmp_path / "code" / HASH_NAME).read_text(encoding="utf-8"))
    assert recorded["git_sha"] == head
    assert (tmp_path / "code" / "setup.cfg").is_file()
    assert not (tmp_path / "code" / "tests").exists()
    # Copied on by a tool that follows links, it is still what was hashed.
    shutil.copytree(tmp_path / "code", tmp_path / "copied")
    assert set(image_hashes(tmp_path / "copied")) == {recorded["hash"]}


def test_check_ends_with_1_where_a_rule_is_broken(clean: dict[str, Made], scratch: Path) -> None:
    made = clean["closed"].copy(scratch)
    passed = call("check", made.root)
    assert (passed.exit_code, "no violation" in passed.output) == (0, True)
    set_at(made.sequence, "seed", to=7)
    failed = call("check", made.root)
    assert failed.exit_code == 1
    assert "6.3.2.1 kvcacheClosedSequenceLocks" in failed.output
    assert "1 violation of 1 rule" in failed.output
    assert "found  seed 7" in failed.output


def test_check_as_json_holds_every_rule_and_every_finding(clean: dict[str, Made], scratch: Path) -> None:
    made = clean["open"].copy(scratch)
    set_at(made.sequence, "invocation", to=[])
    done = call("check", made.root, "--json")
    content = json.loads(done.output)
    assert done.exit_code == 1
    assert (content["passed"], content["violations"], len(content["rules"])) == (False, 1, len(RULES))
    broken = [row["id"] for row in content["rules"] if row["violations"]]
    assert broken == ["kvcacheOpenInvocationNote"]
    assert "kvcacheOpenInvocationNote" in [finding["id"] for finding in content["findings"]]


def test_the_table_has_the_headline_figures_of_the_summary(clean: dict[str, Made]) -> None:
    made = clean["closed"]
    rows = list(csv.DictReader(StringIO(call("table", made.root, "--format", "csv").output)))
    assert [row["option"] for row in rows] == ["1", "2", "3"]
    summary = json.loads(made.summary.read_text(encoding="utf-8"))
    for row in rows:
        option = summary["options"][row["option"]]
        assert (row["submitter"], row["system"], row["clients"], row["status"]) == ("acme", "big-box", "2", "ok")
        assert float(row["read GiB/s"]) == pytest.approx(option["aggregated_read_bandwidth_gbps"], rel=1e-4)
        assert float(row["read P95 ms"]) == pytest.approx(option["aggregated_device_read_p95_ms"], rel=1e-4)
        assert float(row["write P95 ms"]) == pytest.approx(option["aggregated_device_write_p95_ms"], rel=1e-4)
        wanted = option["aggregated_storage_throughput_tokens_per_sec"]
        assert float(row["storage tokens/s"]) == pytest.approx(wanted, rel=1e-4)


def test_the_table_marks_rehearsals_and_what_breaks_rules(clean: dict[str, Made], tmp_path: Path) -> None:
    rehearsal = make_tree(tmp_path / "r", Plan(submitter="umbrella", rehearsal=True))
    wrong = clean["closed"].copy(tmp_path)
    set_at(wrong.sequence, "seed", to=7)
    words: list[str | Path] = ["table", clean["open"].root, rehearsal.root, wrong.root, "--format"]
    status = {
        row["submitter"] + row["division"]: row["status"]
        for row in csv.DictReader(StringIO(call(*words, "csv").output))
    }
    assert status == {
        "acmeopen": "ok",
        "umbrellaclosed": "REHEARSAL",
        "acmeclosed": "VIOLATES 6.3.2.1 kvcacheClosedSequenceLocks",
    }
    markdown = call(*words, "md").output.splitlines()
    assert len(markdown) == 2 + 9
    assert {line.count("|") for line in markdown} == {len(COLUMNS) + 1}
    page = call(*words, "html").output
    assert page.count('<tr class="broken">') == 6
    assert page.count('<tr class="sound">') == 3


def test_the_table_refuses_a_run_that_is_there_twice(clean: dict[str, Made], tmp_path: Path) -> None:
    made = clean["closed"]
    for again in (made.root, made.copy(tmp_path).root):
        done = call("table", made.root, again)
        assert done.exit_code == 1
        assert "are the same run of one system: give each tree once" in done.output
        assert "| acme" not in done.output


def test_a_violation_of_one_system_does_not_mark_another(clean: dict[str, Made], scratch: Path) -> None:
    made = clean["closed"].copy(scratch)
    other = Made(made.root, replace(made.plan, system="small|box"))
    shutil.copytree(made.system, other.system)
    for suffix in (".yaml", ".pdf"):
        shutil.copy(made.description.with_suffix(suffix), other.description.with_suffix(suffix))
    set_at(other.sequence, "system", to="small|box")
    made.description.with_suffix(".pdf").write_text("none", encoding="utf-8")
    rows = csv.DictReader(StringIO(call("table", made.root, "--format", "csv").output))
    status = {row["system"]: row["status"] for row in rows}
    assert status == {"big-box": "VIOLATES 2.1.7 systemsDirectoryFiles", "small|box": "ok"}
    assert r"small\|box" in call("table", made.root).output
