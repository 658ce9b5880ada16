"""Does all that tests/faults does to runs, and prints the table of faults: `python tests/faults/table.py [FILE]`.

It needs what the tests need (root, Open MPI, FUSE, the packages of launch/testbed) and takes some minutes. FILE: lines
of an earlier call of the tests with KVBENCH_FAULT_TABLE=FILE, to be printed without doing anything again.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HEADINGS = ("what was done", "exit code", "what kvbench said", "seconds to the end", "records before", "records after")
_LONGEST = 420
_PLACES = (
    (r"s3://kvbench/[a-z-]+", "ADDRESS"),
    (r"\S*/mounted-\d+/run\.h5", "OUT"),
    (r"'?/\S*/under test'?", "DIR"),
    (r"/\S*/(?:mounted-\d+|failing|local|shared|cephfs)(?=[/'` ])", "DIR"),
    (r" HNP daemon .*", ""),
    (r"/\S*/spill\d+|/\S*/mounted-\d+", "SPILL"),
    (r"/\S*/run\.h5", "OUT"),
    (r"\d{8}-\d{6}-[0-9a-f]{6}", "RUN"),
    (r"\b[cf]\d{1,7}-n(\d)", r"node\1"),
)
"""What differs from call to call: directories, run ids, names of nodes; and what mpirun adds to a message."""


def row(line: dict[str, object]) -> str:
    """One line of the table."""
    message = str(line["message"])
    for pattern, name in _PLACES:
        message = re.sub(pattern, name, message)
    if len(message) > _LONGEST:
        message = f"{message[:_LONGEST].rsplit(' ', 1)[0]} ..."
    cells = (line["done"], line["code"], message, line["seconds"], line["before"], line["after"])
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def main() -> int:
    """Print the table; returns the exit code of the tests."""
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "faults.jsonl"
        if len(sys.argv) <= 1:
            words = [sys.executable, "-m", "pytest", "-q", "-m", "", str(Path(__file__).parent)]
            environment = {**os.environ, "KVBENCH_FAULT_TABLE": str(path), "CI": "true"}
            code = subprocess.run(words, env=environment, stdout=sys.stderr, check=False).returncode
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    print(f"| {' | '.join(HEADINGS)} |")
    print("|---|---|---|---|---|---|")
    for line in lines:
        print(row(line))
    return code


if __name__ == "__main__":
    sys.exit(main())
