"""Does kvbench read as fast as fio does, and do the read paths stand in the order that was measured before?"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from conftest import ROUNDS, SECONDS, Figure, fio_reads, in_turns, ranks_read
from rank_reads import Reads

KIB, MIB = 1024, 1024**2
Report = Callable[[Figure], None]


@pytest.mark.parametrize(
    ("object_bytes", "block_bytes", "wanted"), [(MIB, MIB, 0.95), (64 * MIB, 64 * MIB, 0.95), (MIB, 64 * KIB, 0.8)]
)
def test_buffered_reads_of_tmpfs_are_as_fast_as_fio(
    tmpfs: Path, report: Report, object_bytes: int, block_bytes: int, wanted: float
) -> None:
    reads = Reads(str(tmpfs), "buffered", object_bytes, max(1, 256 * MIB // object_bytes), block_bytes, 0, SECONDS)
    ratios, ours, fio = in_turns(lambda: ranks_read(reads)["gb_per_s"], lambda: fio_reads(reads))
    size = f"{object_bytes // MIB} MiB objects, {block_bytes // KIB} KiB blocks"
    figure = Figure(f"buffered / fio, tmpfs, {size}", ratios, f">= {wanted}", f"{ours:.1f} / {fio:.1f} GB/s")
    report(figure)
    assert figure.ratio >= wanted


def test_direct_reads_of_a_disk_are_as_fast_as_fio(disk: Path, report: Report) -> None:
    """In blocks that a drive takes in one request, however its pages are scattered: of 1 MiB on small pages, a virtual
    drive of 254 segments makes two, or one where the pages happen to lie together."""
    reads = Reads(str(disk), "direct", 64 * MIB, 4, 512 * KIB, 0, SECONDS)
    ratios, ours, fio = in_turns(lambda: ranks_read(reads)["gb_per_s"], lambda: fio_reads(reads))
    figure = Figure("direct / fio O_DIRECT, disk, 512 KiB blocks", ratios, ">= 0.9", f"{ours:.2f} / {fio:.2f} GB/s")
    report(figure)
    assert figure.ratio >= 0.9


def test_what_huge_pages_do_for_direct_reads_is_shown(disk: Path, report: Report) -> None:
    """No limit: fio's buffer is on small pages, a run's arena on huge ones."""
    small = Reads(str(disk), "direct", 64 * MIB, 4, MIB, 0, SECONDS)
    huge = replace(small, huge_pages=True)
    ratios, large, little = in_turns(lambda: ranks_read(huge)["gb_per_s"], lambda: ranks_read(small)["gb_per_s"])
    report(Figure("direct into huge / small pages, disk", ratios, "shown", f"{large:.2f} / {little:.2f} GB/s"))
    assert min(ratios) > 0


def test_the_cost_of_a_file_for_each_small_block_is_shown(tmpfs: Path, report: Report) -> None:
    """No limit: fio keeps its files open and reads 64 KiB for which kvbench opens, reads and closes a file."""
    reads = Reads(str(tmpfs), "buffered", 64 * KIB, 1024, 64 * KIB, 0, SECONDS)
    shares = []

    def ours() -> float:
        figures = ranks_read(reads)
        shares.append(figures["gb_per_s_in_spans"])
        return figures["gb_per_s"]

    ratios, loop, fio = in_turns(ours, lambda: fio_reads(reads))
    detail = f"{loop:.1f} / {fio:.1f} GB/s; in timed spans {median(shares):.1f}"
    report(Figure("buffered / fio, tmpfs, a file for each 64 KiB", ratios, "shown", detail))
    assert min(ratios) > 0


def test_read_paths_stand_in_their_order(tmpfs: Path, report: Report) -> None:
    """Double copy < single copy < a reused buffer, as in the measurements that the design rests on."""
    rates: dict[str, list[float]] = {"double-copy": [], "numpy": [], "buffered": []}
    for _ in range(ROUNDS):
        for path, seen in rates.items():
            reads = Reads(str(tmpfs), path, 64 * MIB, 4, 64 * MIB, 256 * MIB, SECONDS)
            seen.append(ranks_read(reads)["gb_per_s_in_spans"])
    for path, lowest, highest in (("double-copy", 0.4, 0.95), ("buffered", 1.05, 4.0)):
        ratios = [a / b for a, b in zip(rates[path], rates["numpy"], strict=True)]
        detail = f"{median(rates[path]):.1f} / {median(rates['numpy']):.1f} GB/s"
        figure = Figure(f"{path} / numpy, tmpfs, 64 MiB objects", ratios, f"{lowest} to {highest}", detail)
        report(figure)
        assert lowest <= figure.ratio <= highest


def test_the_split_tells_memory_from_a_device(tmpfs: Path, disk: Path, report: Report) -> None:
    in_memory = ranks_read(Reads(str(tmpfs), "buffered", 64 * MIB, 4, MIB, 256 * MIB, SECONDS))
    on_disk = ranks_read(Reads(str(disk), "direct", 64 * MIB, 4, MIB, 256 * MIB, SECONDS))
    report(Figure("device time / wall time, buffered, tmpfs", [in_memory["device_share"]], "< 0.02", ""))
    report(Figure("device time / wall time, direct, disk", [on_disk["device_share"]], "> 0.9", ""))
    assert in_memory["device_share"] < 0.02
    assert on_disk["device_share"] > 0.9
