"""Ranks whose command lines differ: refused before anything is made, naming what differs and on which ranks."""

from collections.abc import Callable
from pathlib import Path

import pytest
from kvbench_command import KVBENCH, QUICK, Command, overrides, remains

from kvbench.cluster.launch.mpirun import Mpirun, mpirun_command, mpirun_environment
from kvbench.commands.mlperf_run import run as mlperf_run
from kvbench.commands.ranks import RanksCommand
from kvbench.commands.run import run
from kvbench.commands.study_copy_path import copy_path

Start = Callable[..., Command]
StartEach = Callable[..., Command]

RANK = "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}"


@pytest.fixture
def start_each(start: Start, mpirun: Mpirun) -> StartEach:
    """Start a line of shell on every rank, with `kvbench` for the command and $RANK for the rank's number."""

    def begin(line: str, ranks: int = 2) -> Command:
        shell = ("sh", "-c", f'RANK={RANK}; kvbench() {{ "$KVBENCH_PYTHON" -m kvbench "$@"; }}; {line}')
        environment = {"KVBENCH_PYTHON": KVBENCH[0], **mpirun_environment(mpirun, {})}
        return start(*mpirun_command(mpirun, ranks, exports=["KVBENCH_PYTHON"]), *shell, environment=environment)

    return begin


def quick(folder: Path, out: Path) -> str:
    """A run of `smoke`, as words for a shell."""
    return f"kvbench run smoke --dir '{folder}' --out '{out}' {' '.join(overrides(*QUICK))}"


@pytest.mark.slow
def test_a_directory_for_each_rank_by_the_shell_is_refused_with_rank_and_option(
    start_each: StartEach, host: str, folder: Path, tmp_path: Path
) -> None:
    for rank in range(3):
        (folder / f"nv{rank}").mkdir()
    out = tmp_path / "run.h5"
    ended = start_each(f"{quick(folder, out)} --dir '{folder}/nv'$RANK", ranks=3).ended()
    assert ended.code == 1
    (message,) = ended.messages
    assert message.splitlines()[:3] == [
        "kvbench: the ranks were told different things:",
        f"  rank 1 on {host}: --dir {folder}/nv1 (rank 0: --dir {folder}/nv0)",
        f"  rank 2 on {host}: --dir {folder}/nv2 (rank 0: --dir {folder}/nv0)",
    ]
    assert not out.exists()
    assert remains(folder) == ["nv0", "nv1", "nv2"]


def test_every_option_and_the_configuration_count(
    start_each: StartEach, host: str, folder: Path, tmp_path: Path
) -> None:
    differing = (
        f"kvbench run $(test $RANK = 1 && echo null || echo smoke) --dir '{folder}' --out '{tmp_path}/run'$RANK.h5 "
        "--set io.threads=2 --set workload.users=$RANK --patience 1$RANK $(test $RANK = 1 && echo --overwrite)"
    )
    (message,) = start_each(differing).ended().messages
    assert message.splitlines()[1] == (
        f"  rank 1 on {host}: null (rank 0: smoke), --out {tmp_path}/run1.h5 (rank 0: --out {tmp_path}/run0.h5), "
        "--set workload.users=1 (rank 0: --set workload.users=0), --overwrite (rank 0: without --overwrite), "
        "--patience 11.0 (rank 0: --patience 10.0)"
    )


@pytest.mark.slow
def test_a_relative_directory_is_another_in_every_working_directory(
    start_each: StartEach, host: str, tmp_path: Path
) -> None:
    for rank in range(2):
        (tmp_path / f"at-{rank}" / "data").mkdir(parents=True)
    line = f"cd '{tmp_path}/at-'$RANK; {quick(Path('data'), Path('run.h5'))}"
    (message,) = start_each(line).ended().messages
    assert f"rank 1 on {host}: --dir {tmp_path}/at-1/data (rank 0: --dir {tmp_path}/at-0/data)" in message


@pytest.mark.slow
def test_working_directories_may_differ_where_no_directory_depends_on_them(
    start_each: StartEach, folder: Path, tmp_path: Path
) -> None:
    for rank in range(2):
        (tmp_path / f"at-{rank}").mkdir()
    ended = start_each(f"cd '{tmp_path}/at-'$RANK; {quick(folder, Path('run.h5'))}").ended()
    assert ended.code == 0, ended.err
    assert remains(tmp_path / "at-0") == ["run.h5"]
    assert remains(tmp_path / "at-1") == []


def test_a_rank_that_alone_has_a_mistake_in_its_command_line_is_named_and_none_waits(
    start_each: StartEach, host: str, folder: Path, tmp_path: Path
) -> None:
    line = f"{quick(folder, tmp_path / 'run.h5')} --gather $(test $RANK = 1 && echo bogus || echo auto)"
    ended = start_each(line).ended()
    assert ended.code == 1
    (message,) = ended.messages
    mistake = "Invalid value for '--gather': 'bogus' is not one of 'auto', 'ranks', 'nodes'."
    assert message.splitlines()[1] == f"  rank 1 on {host}: {mistake} (rank 0: a command line without a mistake)"


def test_a_mistake_that_all_ranks_have_is_told_once_as_of_one_rank(
    start_each: StartEach, folder: Path, tmp_path: Path
) -> None:
    ended = start_each(f"{quick(folder, tmp_path / 'run.h5')} --gather bogus").ended()
    assert ended.code == 2
    assert ended.err.count("Invalid value for '--gather'") == 1
    assert "different things" not in ended.err


def test_all_commands_that_ranks_carry_out_together_compare_what_they_were_told() -> None:
    assert all(isinstance(command, RanksCommand) for command in (run, copy_path, mlperf_run))


@pytest.mark.slow
def test_a_sequence_of_trials_is_told_the_same(start_each: StartEach, host: str, folder: Path) -> None:
    words = f"--division closed --system s --submitter s --dir '{folder}' --results '{folder}/r'"
    ended = start_each(f"kvbench mlperf run {words} --option 1 --option $((RANK + 1))").ended()
    assert ended.code == 1
    (message,) = ended.messages
    assert f"  rank 1 on {host}: --option 2 (rank 0: --option 1)" in message
    assert remains(folder) == []
