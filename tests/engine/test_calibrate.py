"""Calibration measures something, with any arena, and leaves nothing behind."""

from pathlib import Path as FilePath

import pytest

from kvbench.records.schema import Path
from kvbench.run.calibration import (
    delete_calibration_object,
    memory_copy_gib_per_s,
    storage_read_gib_per_s,
    write_calibration_object,
)
from kvbench.tiers.arena import Arena
from kvbench.tiers.file.tier import FileTier
from kvbench.tiers.payload import Payload
from kvbench.units import KIB, MIB, SECTOR_BYTES, SEGMENT_BYTES


@pytest.mark.parametrize("segments", [1, 2, 3])
def test_memory_is_copied_within_an_arena_of_any_size(segments: int, payload: Payload) -> None:
    arena = Arena(segments * SEGMENT_BYTES, 1, payload.body)
    assert memory_copy_gib_per_s(arena, 0.0, 256 * KIB) > 0
    copies = arena.bytes[: arena.nbytes].reshape(segments, -1)
    assert (copies == payload.body).all(), "fit for stamping as before"


@pytest.mark.parametrize("nbytes", [SECTOR_BYTES, 9 * MIB])
@pytest.mark.parametrize("read_path", [Path.BUFFERED, Path.NUMPY, Path.MMAP_TOUCH])
def test_storage_is_read_and_the_object_removed(
    folder: FilePath, payload: Payload, read_path: Path, nbytes: int
) -> None:
    arena = Arena(2 * SEGMENT_BYTES, 1, payload.body)
    tier = FileTier(folder, read_path, Path.BUFFERED, 256 * KIB, drop_page_cache=True)
    write_calibration_object(tier, arena, payload, nbytes)
    assert len(list(folder.iterdir())) == 1
    assert storage_read_gib_per_s(tier, arena, nbytes, 0.0) > 0
    delete_calibration_object(tier)
    assert list(folder.iterdir()) == []
    tier.close()
