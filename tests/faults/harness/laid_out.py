"""Settings of runs whose objects lie otherwise than as a file each, or move otherwise than one after the other."""

import pytest
from transfer_library import need_nixl

FOLDERS = ("tiers.1.layout={levels: 2, width: 1, rename: true}",)
# Short contexts, much of which is found, and more of that on the file tier than in memory.
SHORT_CONTEXTS = (
    "workload={kind: sessions, users: 2, span_s: 36000, applications: {number: 2, prompt_tokens: 640}, "
    "turns: {first_tokens: 256, new_tokens: 128, output_tokens: 64}}",
    "pacing.mode=asap",
    "cache.write=write-through",
    "tiers.0.capacity_bytes=12MiB",
)
SLAB = (*SHORT_CONTEXTS, "tiers.1={kind: file, capacity_bytes: 48MiB, layout: {kind: slab}}")
BUCKET = (
    *SHORT_CONTEXTS,
    "io.sync=batch",
    "tiers.1={kind: file, capacity_bytes: 48MiB, layout: {kind: bucket, bucket_bytes: 16MiB, garbage: 0.3}}",
)
ON_RINGS = ("io.engine=uring", "io.depth=8", "io.threads=2")
FILES = (*SHORT_CONTEXTS, "tiers.1={kind: file, capacity_bytes: 48MiB}")
NIXL = (*FILES, "io.engine=nixl", *ON_RINGS[1:])
LAYOUTS = {
    "folders": ("folders, renamed", FOLDERS),
    "slab": ("slab", SLAB),
    "bucket": ("buckets, batches synced", BUCKET),
    "rings": ("files on rings", (*FILES, *ON_RINGS)),
    "slab-rings": ("slab on rings", (*SLAB, *ON_RINGS)),
    "bucket-rings": ("buckets on rings, batches synced", (*BUCKET, *ON_RINGS)),
    "nixl": ("files by NIXL", NIXL),
    "slab-nixl": ("slab by NIXL", (*SLAB, *NIXL[-3:], "io.nixl.options={use_uring: true}")),
}


def skip_without_library(name: str) -> None:
    """Skip a test of what is called so where it moves bytes by a library that is not there."""
    if "by NIXL" in name:
        need_nixl()


EVERY = pytest.mark.parametrize(("name", "layout"), LAYOUTS.values(), ids=LAYOUTS)
_WITH_EACH = ("folders", "slab-nixl", "bucket-rings")
PLAIN_AND_EACH = pytest.mark.parametrize(
    ("name", "layout"),
    [("", ()), *((f"{LAYOUTS[which][0]}: ", LAYOUTS[which][1]) for which in _WITH_EACH)],
    ids=["plain", *_WITH_EACH],
)
"""As `smoke` has it, and so few others that each layout and each engine is among them; names stand before what was
done."""
