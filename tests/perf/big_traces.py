"""What a trace that is larger than memory costs: time and peak memory of every kvbench command that reads one.

    python tests/perf/big_traces.py FOLDER [--requests 10000] [--tokens 150000] [--rows 3000000] [--ranks 2]

Makes in FOLDER, where they are not there yet, a trace of sessions whose contexts grow (JSON lines as Bailian's, blocks
of 16 tokens) and a table as Azure's, and prints a line for each command. Peak memory is that of all processes of a
command together, by what they have for themselves (anonymous pages) and by what is a copy of files, which the kernel
takes back when memory is wanted.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import psutil

_BLOCK_TOKENS: Final = 16
_TURNS: Final = 50
_POLL_S: Final = 0.02
_MIB: Final = 2**20
_SMALL_MODEL: Final = "model={layers: 1, kv_heads: 1, head_dim: 16}"


class Cost(NamedTuple):
    """Of a command and all the processes that it starts."""

    seconds: float
    own_mib: float
    """Anonymous pages, at most at a time."""
    mapped_mib: float
    """Pages of files, likewise; those of several processes count several times."""


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--tokens", type=int, default=150_000, help="of a context, on average")
    parser.add_argument("--rows", type=int, default=3_000_000, help="of the table")
    parser.add_argument("--ranks", type=int, default=2, help="of the run")
    parser.add_argument("--only", default="", help="commands whose name has this in it")
    choices = parser.parse_args()
    folder: Path = choices.folder
    folder.mkdir(exist_ok=True)
    sessions = folder / f"sessions-{choices.requests}-{choices.tokens}.jsonl"
    table = folder / f"table-{choices.rows}.csv"
    made(sessions, session_lines(choices.requests, choices.tokens))
    made(table, table_lines(choices.rows))
    print(
        f"{sessions.name}: {sessions.stat().st_size / _MIB:.0f} MiB; "
        f"{table.name}: {table.stat().st_size / _MIB:.0f} MiB"
    )
    print("\n| command | s | peak MiB of its own | peak MiB of files |\n|---|---|---|---|", flush=True)
    for name, arguments in commands(folder, sessions, table, choices.ranks):
        if choices.only in name:
            cost = measured(["kvbench", *arguments])
            print(f"| {name} | {cost.seconds:.1f} | {cost.own_mib:.0f} | {cost.mapped_mib:.0f} |", flush=True)
    return 0


def commands(folder: Path, sessions: Path, table: Path, ranks: int) -> Iterator[tuple[str, list[str]]]:
    """Name and arguments of each."""
    own, part, out = folder / "own.parquet", folder / "part.parquet", folder / "run.h5"
    path = [f"--set=workload.path={sessions}", "--set=workload.format=auto", "--set=cache.block_tokens=16"]
    path += [f"--set={_SMALL_MODEL}", "--set=pacing.mode=asap"]
    yield "trace info", ["trace", "info", str(sessions)]
    yield "trace convert", ["trace", "convert", str(sessions), "-o", str(own), "--overwrite"]
    yield "trace info, Parquet", ["trace", "info", str(own)]
    yield "trace sample", ["trace", "sample", str(own), "-n", "500", "-o", str(part), "--overwrite"]
    yield "trace slice", ["trace", "slice", str(own), "--requests", ":500", "-o", str(part), "--overwrite"]
    yield "plan", ["plan", "mooncake", *path, "--capacity", "1000000blocks"]
    own_path = [f"--set=workload.path={own}" if each.startswith("--set=workload.path=") else each for each in path]
    yield "plan, Parquet", ["plan", "mooncake", *own_path, "--capacity", "1000000blocks"]
    null = "--set=tiers=[{kind: 'null', capacity_bytes: 1GiB}]"
    run = ["run", "mooncake", *own_path, null, "--set=duration_s=10", "--set=calibration.seconds=0"]
    run += ["--set=records=sampled", "--out", str(out), "--overwrite", "--no-spill"]
    yield f"run of 10 s, Parquet, {ranks} ranks", [*run, f"--ranks={ranks}"]
    yield "table: trace info", ["trace", "info", str(table)]
    yield "table: plan", ["plan", "azure", f"--set=workload.path={table}"]


def made(path: Path, lines: Iterator[str]) -> None:
    """Write the file, where it is not there."""
    if not path.exists():
        beside = path.with_suffix(".part")
        with beside.open("w") as file:
            file.writelines(lines)
        beside.rename(path)


def session_lines(requests: int, tokens: int) -> Iterator[str]:
    """Sessions of _TURNS turns, side by side, whose contexts grow from two thirds of `tokens` to four thirds."""
    blocks = tokens // _BLOCK_TOKENS
    sessions = -(-requests // _TURNS)
    first, step = blocks * 2 // 3, max(1, blocks * 2 // 3 // _TURNS)
    texts = [""] * sessions
    counts = [0] * sessions
    for number in range(requests):
        session = number % sessions
        turn = number // sessions
        count = first + turn * step
        base = session * (first + _TURNS * step + 1)
        more = ",".join(map(str, range(base + counts[session], base + count)))
        texts[session] = f"{texts[session]},{more}" if texts[session] else more
        counts[session] = count
        yield (
            f'{{"chat_id":{number},"parent_chat_id":{number - sessions if turn else -1},"timestamp":{number / 10:.1f},'
            f'"input_length":{count * _BLOCK_TOKENS},"output_length":300,"type":"text","turn":{turn + 1},'
            f'"hash_ids":[{texts[session]}]}}\n'
        )


def table_lines(rows: int) -> Iterator[str]:
    """One request every 20 ms, each with a fraction of seven digits as Azure's have."""
    yield "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    begin = datetime(2024, 5, 10)
    for second in range(-(-rows // 50)):
        at = (begin + timedelta(seconds=second)).isoformat(sep=" ")
        for each in range(min(50, rows - 50 * second)):
            number = 50 * second + each
            yield f"{at}.{each * 200_000 + number % 977:07d},{number % 7919 + 1},{number % 613}\n"


def measured(command: Sequence[str]) -> Cost:
    """Run it. Raises SystemExit where it fails."""
    begin = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        own = mapped = 0.0
        while process.poll() is None:
            pages = [memory_of(each) for each in family(process.pid)]
            own = max(own, sum(each[0] for each in pages))
            mapped = max(mapped, sum(each[1] for each in pages))
            time.sleep(_POLL_S)
        if process.returncode:
            assert process.stderr is not None
            sys.exit(f"{' '.join(command)}\n{process.stderr.read()}")
    return Cost(time.monotonic() - begin, own / 1024, mapped / 1024)


def family(pid: int) -> list[int]:
    """The process and all below it."""
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.Error:
        return []


def memory_of(pid: int) -> tuple[int, int]:
    """KiB of anonymous pages, and of pages of files."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0, 0
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return tuple(int(fields.get(name, "0").split()[0]) for name in ("RssAnon", "RssFile"))  # type: ignore[return-value]


if __name__ == "__main__":
    sys.exit(main())
