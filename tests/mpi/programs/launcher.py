"""Calls kvbench's launcher: `launcher.py RANKS HOSTS PROGRAM ARGUMENTS`, HOSTS comma-separated or `-`."""

import sys
from pathlib import Path

from kvbench.cluster.launch.mpirun import launch

ranks, hosts, name, *arguments = sys.argv[1:]
program = [sys.executable, str(Path(__file__).parent / f"{name}.py")]
places = [] if hosts == "-" else hosts.split(",")
sys.exit(launch(int(ranks), places, arguments, program=program, environment={"KVBENCH_TEST": "passed on"}))
