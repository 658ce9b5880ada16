"""What kvbench weighs: MB of each package that an installation brings, and what starting it costs.

    python tests/perf/weights.py [EXTRA ...]

Of the environment of the Python that runs it, best one with kvbench and nothing else. Each figure of starting is the
median of 5 calls of a fresh process, with the most memory that it held, and its files in the page cache.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path
from statistics import median

CALLS = 5
IMPORTS = {
    "Python alone": "pass",
    "numpy": "import numpy",
    "what a rank of `kvbench run` imports": "import kvbench.commands.run",
    "kvbench_analysis": "import kvbench_analysis",
}


def main() -> None:
    """Print both tables."""
    sizes = {name: megabytes(name) for name in needed("kvbench", frozenset(sys.argv[1:]), set())}
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        print(f"{name:<24} {size:8.1f} MB")
    print(f"{'in all':<24} {sum(sizes.values()):8.1f} MB\n")
    for what, code in IMPORTS.items():
        show(what, [sys.executable, "-c", code])
    command = str(Path(sys.executable).with_name("kvbench"))
    show("`kvbench --version`", [command, "--version"])
    with tempfile.TemporaryDirectory() as folder:
        settings = ["--set", "duration_s=1", "--dir", folder, "--out", f"{folder}/run.h5", "--overwrite"]
        show("`kvbench run smoke`, one rank, 1 s measured", [command, "run", "smoke", *settings])


def needed(name: str, extras: frozenset[str], known: set[str]) -> Iterator[str]:
    """The installed packages that `name` with `extras` asks for, itself among them, each once."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    try:
        asked = requires(name) or []
    except PackageNotFoundError:
        return
    if name not in known:
        known.add(name)
        yield name
    for line in asked:
        requirement, _, marker = line.partition(";")
        named = re.search(r"extra == ['\"]([^'\"]+)", marker)
        found = re.match(r"[\w.-]+", requirement.strip())
        if found and (not named or named[1] in extras) and re.sub(r"[-_.]+", "-", found[0]).lower() not in known:
            yield from needed(found[0], frozenset(), known)


def megabytes(name: str) -> float:
    """10^6 bytes of the files of a package, without what Python compiles of them."""
    places = (Path(str(file.locate())) for file in distribution(name).files or [] if file.suffix != ".pyc")
    return sum(place.stat().st_size for place in places if place.is_file()) / 1e6


def show(what: str, command: list[str]) -> None:
    """A line: seconds and MiB."""
    took, held = zip(*(call(command) for _ in range(CALLS)), strict=True)
    print(f"{what:<48} {median(took):6.2f} s {median(held):6.0f} MiB")


def call(command: list[str]) -> tuple[float, float]:
    """Seconds that a call takes, and MiB that its process held at most."""
    begin = time.perf_counter()
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        process = subprocess.Popen(command, stdout=nowhere, stderr=nowhere)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} ended with {os.waitstatus_to_exitcode(status)}")
    process.returncode = 0
    return time.perf_counter() - begin, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
