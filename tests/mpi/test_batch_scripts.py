"""The scripts for batch systems, run for real with stand-ins for what only a cluster has; the Kubernetes job, read."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import kvbench_analysis as ka
import pytest
import yaml

from kvbench.cluster.launch.mpirun import Mpirun, mpirun_environment

pytestmark = pytest.mark.slow

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
BIN = Path(sys.executable).parent

SRUN = """#!/usr/bin/env bash
# What the script may ask of srun: one task on each node, or all ranks. Anything else is an error.
set -euo pipefail
echo "srun $*" >> "$SRUN_CALLS"
case "$1" in
    --ntasks=*) [ "$1 $2" = "--ntasks=1 --ntasks-per-node=1" ] && shift 2 && exec "$@" ;;
    --mpi=pmix) [ "$2 $3" = "--cpu-bind=none --kill-on-bad-exit=1" ] && shift 3 && exec mpirun -n 2 "$@" ;;
esac
exit 64
"""


@pytest.fixture
def environment(mpirun: Mpirun, tmp_path: Path) -> dict[str, str]:
    """What both scripts need: the directory under test, and a run that is short."""
    directory = tmp_path / "cache"
    directory.mkdir()
    return mpirun_environment(mpirun, os.environ) | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "KVBENCH_VENV": str(BIN.parent),
        "KVBENCH_DIR": str(directory),
        "KVBENCH_CONFIG": "smoke",
        "KVBENCH_OUT": str(tmp_path / "run.h5"),
    }


def run(words: list[str], environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in `folder`, as a batch system does."""
    return subprocess.run(
        words,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def check_run_of_two_ranks(done: subprocess.CompletedProcess[str], tmp_path: Path) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert "O_DIRECT alignment" in done.stdout, "kvbench doctor looked at the directory"
    run_file = ka.load(tmp_path / "run.h5")
    assert (run_file.attributes["status"], run_file.attributes["ranks"]) == ("complete", 2)
    assert not [*(tmp_path / "cache").iterdir()]


def test_the_slurm_script_checks_each_node_and_runs_on_all_ranks(environment: dict[str, str], tmp_path: Path) -> None:
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    (stand_ins / "srun").write_text(SRUN)
    (stand_ins / "srun").chmod(0o700)
    # The script puts its venv before all else, which has no srun.
    environment |= {
        "PATH": f"{stand_ins}:{environment['PATH']}",
        "SRUN_CALLS": str(tmp_path / "calls"),
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_ID": "7",
        "SLURM_SUBMIT_DIR": str(tmp_path),
    }
    # Slurm runs a copy of the script that lies elsewhere.
    script = tmp_path / "slurm_script"
    script.write_bytes((LAUNCH / "slurm.sbatch").read_bytes())
    done = run(["bash", str(script), "--set", "duration_s=0.5"], environment, tmp_path)
    check_run_of_two_ranks(done, tmp_path)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 2
    assert calls[1].endswith(f"--out {tmp_path}/run.h5 --set duration_s=0.5")


def test_the_pbs_script_takes_ranks_and_nodes_from_its_node_file(environment: dict[str, str], tmp_path: Path) -> None:
    node_file = tmp_path / "nodes"
    node_file.write_text("localhost\nlocalhost\n")
    environment |= {
        "PBS_NODEFILE": str(node_file),
        "PBS_O_WORKDIR": str(tmp_path),
        "PBS_JOBID": "7.server",
        "KVBENCH_OPTIONS": "--set duration_s=0.5",
    }
    done = run(["bash", str(LAUNCH / "pbs.sh")], environment, Path("/"))
    check_run_of_two_ranks(done, tmp_path)


def test_the_pbs_script_ends_a_run_in_good_order_before_its_time_is_up(
    environment: dict[str, str], tmp_path: Path
) -> None:
    node_file = tmp_path / "nodes"
    node_file.write_text("localhost\nlocalhost\n")
    environment |= {
        "PBS_NODEFILE": str(node_file),
        "PBS_O_WORKDIR": str(tmp_path),
        "KVBENCH_OPTIONS": "--set duration_s=600",
        "KVBENCH_SECONDS": "20",
    }
    done = run(["bash", str(LAUNCH / "pbs.sh")], environment, tmp_path)
    assert done.returncode != 0
    assert "stopping; what was measured is written" in done.stderr
    assert ka.load(tmp_path / "run.h5").attributes["status"] == "interrupted"


@pytest.mark.parametrize("script", ["slurm.sbatch", "pbs.sh"])
def test_a_script_without_a_directory_says_what_it_lacks(
    environment: dict[str, str], tmp_path: Path, script: str
) -> None:
    del environment["KVBENCH_DIR"]
    done = run(["bash", str(LAUNCH / script)], environment, tmp_path)
    assert done.returncode != 0
    assert "KVBENCH_DIR has to name the directory under test" in done.stderr


@pytest.mark.parametrize(("script", "mark"), [("slurm.sbatch", "#SBATCH"), ("pbs.sh", "#PBS")])
def test_what_is_asked_of_the_batch_system_stands_before_the_first_command(script: str, mark: str) -> None:
    lines = (LAUNCH / script).read_text().splitlines()
    first_command = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    asked = [number for number, line in enumerate(lines) if line.startswith(mark)]
    assert len(asked) >= 5
    assert max(asked) < first_command, "what comes later is not read"


def test_the_example_of_a_hostfile_is_one_to_mpirun(mpirun: Mpirun, tmp_path: Path) -> None:
    if mpirun.family != "openmpi":
        pytest.skip("the example is Open MPI's")
    hosts = tmp_path / "hosts"
    hosts.write_text((LAUNCH / "hostfile.example").read_text().replace("node1", "localhost").replace("node2 ", "#"))
    words = [str(mpirun.path), "--hostfile", str(hosts), "--map-by", "slot:OVERSUBSCRIBE", "-n", "4", "echo", "here"]
    done = run(words, mpirun_environment(mpirun, os.environ), tmp_path)
    assert done.stdout.split() == ["here"] * 4, done.stderr


@pytest.fixture
def job() -> dict[str, Any]:
    """The Kubernetes job."""
    content: dict[str, Any] = yaml.safe_load((LAUNCH / "mpijob.yaml").read_text())
    return content


def test_the_kubernetes_job_starts_as_many_ranks_as_its_workers_have_places(job: dict[str, Any]) -> None:
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
    spec = job["spec"]
    launcher, worker = spec["mpiReplicaSpecs"]["Launcher"], spec["mpiReplicaSpecs"]["Worker"]
    arguments = launcher["template"]["spec"]["containers"][0]["args"]
    assert all(isinstance(argument, str) for argument in arguments), "Kubernetes takes nothing but text here"
    assert int(arguments[arguments.index("-n") + 1]) == worker["replicas"] * spec["slotsPerWorker"]
    assert arguments[:2] == ["--hostfile", "/etc/mpi/hostfile"]


def test_what_the_kubernetes_job_mounts_is_there_and_rank_0_can_write_its_file(job: dict[str, Any]) -> None:
    replicas = job["spec"]["mpiReplicaSpecs"]
    pod = replicas["Worker"]["template"]["spec"]
    container = pod["containers"][0]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    arguments = replicas["Launcher"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[arguments.index("--dir") + 1] == mounts["cache"]
    assert Path(arguments[arguments.index("--out") + 1]).parent == Path(mounts["results"])
    assert replicas["Launcher"]["template"]["spec"]["containers"][0]["image"] == container["image"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    labels = replicas["Worker"]["template"]["metadata"]["labels"]
    [rule] = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["labelSelector"]["matchLabels"] == labels, "no two workers on one node"
