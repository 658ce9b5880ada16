"""Options that contradict each other, numbers that are none, and what a process is started without."""

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kvbench_command import KVBENCH, QUICK, Command, Ended, attributes, overrides, remains

from kvbench.config.load import load_config
from kvbench.errors import KvbenchError
from kvbench.run.output.spill_files import another_place

Call = Callable[..., Ended]
Start = Callable[..., Command]

MLPERF = ("mlperf", "run", "--division", "open", "--system", "s", "--submitter", "s")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "null", "--spill", "/var/tmp", "--no-spill"), "--spill and --no-spill contradict each other"),
        (("datasize", "null", "--spill", "/var/tmp", "--no-spill"), "--spill and --no-spill contradict each other"),
        (("run", "null", "--ranks", 2, "--hosts", "a", "--hostfile", "f"), "--hosts and --hostfile contradict"),
        (("run", "null", "--hosts", "a"), "--hosts and --hostfile go with --ranks"),
        ((*MLPERF, "--dir", "a", "--results", "b", "--hostfile", "f"), "--hostfile goes with --ranks"),
        ((*MLPERF, "--dir", "a", "--results", "b", "--hosts", "a", "--hostfile", "f"), "--hosts and --hostfile"),
        (
            ("study", "scaling", "null", "--dir", ".", "--seconds", "1s", "--set", "duration_s=2"),
            "--seconds and --set duration_s contradict each other",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(kvbench: Call, words: tuple[object, ...], said: str) -> None:
    ended = kvbench(*words)
    assert ended.code == 2
    assert said in ended.err


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (("run", "null", "--ranks", 4), "--ranks is"),
        (("run", "null", "--ranks", 4, "--hosts", "a,b"), "--ranks and --hosts are"),
        (("study", "copy-path", "--dir", ".", "--hosts", "a,b"), "--hosts is"),
        ((*MLPERF, "--dir", "a", "--results", "b", "--npernode", 2), "--npernode is"),
    ],
)
def test_ranks_that_a_launcher_has_started_are_not_started_again(
    kvbench: Call, monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...], options: str
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    ended = kvbench(*words)
    assert ended.code == 2
    assert f"{options} for starting ranks, and they are started already by Open MPI's mpirun" in " ".join(
        ended.err.split()
    )


@pytest.mark.parametrize("number", ["inf", "nan", "-inf", "1e300"])
@pytest.mark.parametrize(
    "words",
    [
        ("run", "null", "--patience"),
        ("run", "null", "--ranks", 2, "--patience"),
        (*MLPERF, "--dir", "a", "--results", "b", "--rehearsal", "--trial-seconds"),
        ("study", "scaling", "null", "--dir", ".", "--seconds"),
        ("study", "copy-path", "--dir", ".", "--seconds"),
    ],
)
def test_a_time_that_is_no_number_or_no_time_is_refused(kvbench: Call, words: tuple[object, ...], number: str) -> None:
    ended = kvbench(*words, number)
    assert ended.code in (1, 2)
    assert "Traceback" not in ended.err
    assert ended.err.strip()


@pytest.mark.parametrize("number", ["inf", "nan"])
def test_a_bandwidth_that_is_no_number_is_refused(kvbench: Call, number: str) -> None:
    ended = kvbench("datasize", "smoke", "--gib-per-s", number)
    assert ended.code == 2
    assert f"'{number}' is not a finite number" in ended.err


@pytest.mark.parametrize("value", [".inf", ".nan", "1e300", "1e-300"])
@pytest.mark.parametrize(
    "key",
    ["pacing.speedup", "pacing.requests_per_s", "workload.think_time_scale", "workload.generation_ms_per_token"],
)
def test_a_factor_that_leaves_no_times_is_refused(key: str, value: str) -> None:
    with pytest.raises(KvbenchError, match=rf"{key}: expected a (finite number|number from 1e-6 to 1e6)"):
        load_config("smoke", ("pacing.mode=open", f"{key}={value}"))


@pytest.mark.parametrize("value", [".inf", ".nan", "1e300"])
@pytest.mark.parametrize("key", ["duration_s", "warmup_s", "calibration.seconds"])
def test_a_duration_that_is_none_is_refused(key: str, value: str) -> None:
    with pytest.raises(KvbenchError, match=f"{key}: expected"):
        load_config("smoke", (f"{key}={value}",))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [(), pytest.param(("--ranks", 2), marks=pytest.mark.slow)], ids=["one rank", "two ranks"]
)
def test_a_process_without_a_home_runs_as_any_other(start: Start, tmp_path: Path, options: tuple[object, ...]) -> None:
    out = tmp_path / "run.h5"
    words = ("run", "null", "--out", out, *overrides("duration_s=0.2", "pacing={mode: asap}"), *options)
    ended = start("env", "-u", "HOME", *KVBENCH, *words).ended()
    assert ended.code == 0, ended.err
    assert ended.err == ""
    assert attributes(out)["status"] == "complete"


def limited(soft: int, hard: int) -> tuple[str, ...]:
    """What stands before a command that may have so many files open."""
    code = (
        f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard})); "
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    return (sys.executable, "-c", code)


MANY_THREADS = (*QUICK[:-1], "io.threads=32", "io.arena_bytes=128MiB")


def test_too_few_open_files_are_said_before_anything_is_made(start_run: Start, folder: Path) -> None:
    ended = start_run(*MANY_THREADS, launcher=limited(64, 64)).ended()
    assert ended.code == 1
    (message,) = ended.messages
    assert "a process may have 64 files open here (ulimit -Hn), and this rank needs " in message
    assert "2 for each of 32 threads" in message
    assert remains(folder) == []


@pytest.mark.slow
def test_a_limit_of_open_files_that_may_be_raised_is_raised(start_run: Start, tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 512:
        pytest.skip(f"needs a hard limit of 512 open files; it is {hard}")
    ended = start_run(*MANY_THREADS, launcher=limited(64, 512)).ended()
    assert ended.code == 0, ended.err
    assert attributes(tmp_path / "run.h5")["status"] == "complete"


def test_the_recovered_run_goes_to_another_filesystem_than_the_one_that_was_full(tmp_path: Path) -> None:
    full, works = Path("/proc/run.h5"), tmp_path
    assert another_place(full, (Path("/proc"), works)) == works / "run.h5"
    assert another_place(works / "run.h5", (works,)) == Path("ELSEWHERE/run.h5")
