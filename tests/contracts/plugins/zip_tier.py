"""A kind of tier that keeps the objects of a rank in one zip file, in the directory under test."""

import threading
import zipfile
from pathlib import Path as FilePath

from kvbench.config.names import TierKind
from kvbench.records.schema import Path
from kvbench.tiers.arena import Memory
from kvbench.tiers.contract import Tier
from kvbench.tiers.kinds import Kind, register
from kvbench.tiers.target import Area, Target, TierSettings
from kvbench.tiers.transfer import Cell, Part


class ZipTier(Tier):
    kind, storage, read_path, write_path = "zip", True, Path.BUFFERED, Path.BUFFERED

    def __init__(self, file: str) -> None:
        self._zip, self._lock = zipfile.ZipFile(file, "a"), threading.Lock()
        self._unfinished, self._names = dict[int, bytearray](), dict[int, str]()

    def write(self, cell: Cell, key: int, part: Part, source: Memory, handle: int = -1) -> int:
        with cell.around_python(part) as span, self._lock:
            content = self._unfinished.setdefault(key, bytearray())
            for start, length in source.extents.tolist():
                content += source.buffer.data[start : start + length]
            span.nbytes = int(source.extents[:, 1].sum())
            if part.last:
                self._names[key] = f"{key:x} {len(self._zip.filelist)}"
                self._zip.writestr(self._names[key], self._unfinished.pop(key))
        return -1

    def read(self, cell: Cell, key: int, part: Part, target: Memory, handle: int = -1) -> tuple[int, Memory]:
        with cell.around_python(part) as span, self._lock, self._zip.open(self._names[key]) as content:
            content.seek(part.offset)
            for start, length in target.extents.tolist():
                span.nbytes += content.readinto(target.buffer.data[start : start + length])  # type: ignore[attr-defined]
        return -1, target

    def delete(self, cell: Cell, key: int) -> None:
        with cell.around_python():
            del self._names[key]


class ZipArea(Area):
    def open_tier(self, settings: TierSettings) -> Tier:
        return ZipTier(self.where)

    def remove(self) -> tuple[str, ...]:
        FilePath(self.where).unlink(missing_ok=True)
        return ()


class ZipTarget(Target):
    def area(self, run_id: str, rank: int) -> Area:
        return ZipArea(self.address, f"{self.address}/{run_id}-{rank}.zip")


register("zip", Kind(target=ZipTarget), TierKind(storage=True, has_target=True, keeps_bytes=True, shared=False))
