"""What the doctor finds on this machine, and on one where something is broken."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from kvbench.cluster.node import Node
from kvbench.run.checks import doctor
from kvbench.run.checks.doctor import examine, failed
from kvbench.tiers.arena import Memory
from kvbench.tiers.file import probe as path_probe
from kvbench.tiers.file.examine import examine as examine_directory
from kvbench.tiers.file.examine import judge
from kvbench.tiers.file.tier import FileTier
from kvbench.tiers.target import Finding, Volume
from kvbench.units import GIB, MIB

HEALTHY = Node(
    host="node-a",
    cpus=64,
    cpu_model="Example",
    memory_bytes=256 * GIB,
    memory_available_bytes=200 * GIB,
    llc_bytes=64 * MIB,
    huge_pages="madvise",
    kernel="6.1.0",
    clock_source="tsc",
    schedstat=True,
    governors=("performance",),
)
DISK = Volume("xfs", "/mnt/x", "rw", "/dev/nvme0n1", 1000 * GIB, 900 * GIB)


def state_of(findings: list[Finding], subject: str) -> str:
    return next(finding.state for finding in findings if finding.subject == subject)


def text_of(findings: list[Finding], subject: str) -> str:
    return next(finding.text for finding in findings if finding.subject == subject)


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Finding]]:
    directory = tmp_path_factory.mktemp("examined")
    (directory / "precious.kv").write_bytes(b"not ours")
    return directory, examine(str(directory))


def test_this_machine_can_hold_a_run(examined: tuple[Path, list[Finding]]) -> None:
    assert not failed(examined[1]), [finding for finding in examined[1] if finding.state == "fail"]


def test_everything_that_a_run_rests_on_is_looked_at(examined: tuple[Path, list[Finding]]) -> None:
    subjects = {finding.subject for finding in examined[1]}
    assert subjects >= {"MPI", "mpirun", "compiler", "timer", "schedstat", "filesystem", "free space", "memory", "HDF5"}
    assert subjects >= {"huge pages", "clock source", "O_DIRECT alignment", "page cache", "read direct", "write direct"}


def test_the_doctor_leaves_a_directory_as_it_was(examined: tuple[Path, list[Finding]]) -> None:
    assert [path.name for path in examined[0].iterdir()] == ["precious.kv"]


def test_every_path_is_tried(tmp_path: Path) -> None:
    outcomes = path_probe.probe_paths(tmp_path)
    reads = [f"read {name}" for name in ("double-copy", "numpy", "buffered", "mmap-touch", "mmap-copy", "direct")]
    assert list(outcomes) == ["write buffered", "write direct", *reads]
    assert outcomes["read buffered"] is outcomes["write buffered"] is None


def test_a_path_that_the_filesystem_refuses_is_named_with_the_reason(tmp_path: Path) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(22, "Invalid argument")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileTier, "read", refuse)
        assert path_probe.probe_paths(tmp_path)["read direct"] == "Invalid argument"


def test_data_that_comes_back_changed_is_no_working_path(tmp_path: Path) -> None:
    def lose(tier: object, cell: object, key: int, part: object, target: Memory) -> object:
        return -1, target

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileTier, "read", lose)
        assert path_probe.probe_paths(tmp_path)["read buffered"] == "what was read is not what was written"


def test_a_missing_directory_is_a_failure(tmp_path: Path) -> None:
    findings = list(examine_directory(tmp_path / "missing"))
    assert failed(findings)
    assert "does not exist" in text_of(findings, "directory")


def test_a_file_is_not_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is not a directory" in text_of(list(examine_directory(tmp_path / "file")), "directory")


def test_a_filesystem_that_takes_no_files_is_a_failure() -> None:
    assert state_of(list(examine_directory(Path("/proc"))), "directory") == "fail"


def broken_mpi(folder: Path, source: str) -> None:
    """An mpi4py that goes wrong, for the doctor's trials only."""
    (folder / "mpi4py").mkdir()
    (folder / "mpi4py" / "__init__.py").write_text(source, encoding="utf-8")


def test_an_mpi_library_that_takes_the_process_down_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_mpi(tmp_path, "import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    findings = list(doctor._mpi())
    assert state_of(findings, "MPI") == "warn", "one rank needs no MPI"
    assert "runs have one rank" in text_of(findings, "MPI")


def test_an_mpi_library_that_loads_and_does_not_start_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_mpi(tmp_path, "print('Open MPI'); print('4.0'); print('Open MPI v9'); raise SystemExit('no network')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    findings = list(doctor._mpi())
    assert state_of(findings, "MPI") == "fail"
    assert text_of(findings, "MPI") == "Open MPI v9 is there but does not start: no network"


@pytest.mark.parametrize(
    ("library", "state", "said"),
    [("libc.so.6", "ok", "reach other nodes"), ("libnone.so.1", "warn", "on one node alone (OSError: libnone.so.1")],
)
def test_an_intel_mpi_without_what_it_reaches_other_nodes_by_is_pointed_out(
    monkeypatch: pytest.MonkeyPatch, library: str, state: str, said: str
) -> None:
    monkeypatch.setenv("I_MPI_OFI_LIBRARY", library)
    assert not list(doctor._fabric("Open MPI"))
    [finding] = doctor._fabric("Intel MPI")
    assert (finding.subject, finding.state) == ("libfabric", state)
    assert said in finding.text


@pytest.mark.parametrize(
    ("there", "state", "advice"),
    [
        ((), "warn", "install libpmix2, then ln -s libpmix.so.2"),
        (("libpmix.so.2",), "warn", "not there: ln -s libpmix.so.2"),
        (("libpmix.so.2", "libpmix.so"), "ok", "is there"),
    ],
)
def test_a_slurm_whose_pmix_library_lacks_its_name_is_pointed_out(
    tmp_path: Path, there: tuple[str, ...], state: str, advice: str
) -> None:
    for folder in ("slurm-wlm", "pmix2/lib"):
        (tmp_path / folder).mkdir(parents=True)
    assert not list(doctor._slurm(f"{tmp_path}/slurm-wlm/mpi_pmix*.so"))
    (tmp_path / "slurm-wlm" / "mpi_pmix_v4.so").touch()
    for name in there:
        (tmp_path / "pmix2" / "lib" / name).touch()
    [finding] = doctor._slurm(f"{tmp_path}/slurm-wlm/mpi_pmix*.so")
    assert (finding.subject, finding.state) == ("Slurm's PMIx", state)
    assert advice in finding.text
    assert f"{tmp_path}/pmix2/lib/libpmix.so" in finding.text


def test_an_mpirun_of_another_library_is_pointed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_mpi(tmp_path, "print('Open MPI'); print('4.0'); print('Open MPI v9'); raise SystemExit('no network')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    mpirun = tmp_path / "mpirun"
    mpirun.write_text("#!/bin/sh\necho HYDRA build details:\n", encoding="utf-8")
    mpirun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    findings = list(doctor._mpi())
    assert state_of(findings, "mpirun") == "warn"
    assert "every rank would be alone" in text_of(findings, "mpirun")


@pytest.fixture
def engines_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether rings and NIXL can be used is looked at on this machine, whatever node is described."""
    monkeypatch.setattr(doctor, "ring_trouble", lambda depth: None)
    monkeypatch.setattr(doctor, "_trial", lambda code: (0, ["nixl"]))


@pytest.mark.usefixtures("engines_there")
def test_a_healthy_node_gives_no_warning() -> None:
    assert {finding.state for finding in doctor._node(HEALTHY)} == {"ok"}


def test_an_engine_that_is_not_installed_is_no_trouble_and_one_that_does_not_load_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "_trial", lambda code: (1, ["io.engine=nixl: a library is missing"]))
    monkeypatch.setattr(doctor, "is_installed", lambda: True)
    findings = list(doctor._node(HEALTHY))
    assert state_of(findings, "NIXL") == "warn"
    assert text_of(findings, "NIXL") == "io.engine=nixl cannot be used: a library is missing"
    monkeypatch.setattr(doctor, "is_installed", lambda: False)
    findings = list(doctor._node(HEALTHY))
    assert state_of(findings, "NIXL") == "ok"
    assert text_of(findings, "NIXL").startswith("not installed")


@pytest.mark.usefixtures("engines_there")
@pytest.mark.parametrize(
    ("node", "subject"),
    [
        (replace(HEALTHY, governors=("performance", "powersave")), "frequency governor"),
        (replace(HEALTHY, huge_pages="never"), "huge pages"),
        (replace(HEALTHY, schedstat=False), "schedstat"),
        (replace(HEALTHY, clock_source="hpet"), "clock source"),
    ],
)
def test_what_only_spoils_figures_is_a_warning(node: Node, subject: str) -> None:
    findings = list(doctor._node(node))
    assert [finding.subject for finding in findings if finding.state != "ok"] == [subject]
    assert not failed(findings)


def test_a_node_without_memory_for_one_rank_is_a_failure() -> None:
    findings = list(doctor._node(replace(HEALTHY, memory_available_bytes=100 * MIB)))
    assert text_of(findings, "memory") == "100 MiB of 256 GiB available; one rank needs 256 MiB and more"
    assert failed(findings)


@pytest.mark.parametrize(
    ("filesystem", "subject", "state"),
    [
        (DISK, "filesystem", "ok"),
        (replace(DISK, kind="tmpfs", in_memory=True), "filesystem", "warn"),
        (replace(DISK, kind="overlay"), "filesystem", "warn"),
        (replace(DISK, free_bytes=GIB // 2), "free space", "warn"),
        (replace(DISK, free_bytes=MIB), "free space", "fail"),
    ],
)
def test_a_filesystem_is_judged_by_kind_and_free_space(filesystem: Volume, subject: str, state: str) -> None:
    assert state_of(list(judge(filesystem)), subject) == state


def test_a_client_whose_memory_cannot_be_dropped_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvbench.tiers.file.examine.filesystem_of", lambda path: replace(DISK, kind="fuse.ceph-fuse"))
    findings = list(examine_directory(tmp_path))
    assert state_of(findings, "page cache") == "warn"
    assert text_of(findings, "page cache").endswith("not from the memory of this filesystem's client: read direct")
