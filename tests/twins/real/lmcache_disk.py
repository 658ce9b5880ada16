"""LMCache's local disk."""

import threading

from common import asked, check, phase
from lmcache.v1.storage_backend.local_disk_backend import LocalDiskBackend
from lmcache_setup import Setup

directory, block_bytes, blocks = asked()
setup = Setup(block_bytes, local_disk=directory, max_local_disk_size=1)
disk = LocalDiskBackend(setup.config, setup.loop, setup.memory, "cpu", metadata=setup.metadata)
keys = [setup.key(number) for number in range(blocks)]
chunks = [setup.chunk(number, block_bytes) for number in range(blocks)]
with phase("look-up"):
    assert not any(disk.contains(key) for key in keys)
stored = threading.Semaphore(0)
with phase("store"):
    disk.batched_submit_put_task(keys, chunks, on_complete_callback=lambda _: stored.release())
    for _ in keys:
        stored.acquire()
with phase("found"):
    assert all(disk.contains(key) for key in keys)
with phase("load"):
    loaded = disk.batched_get_blocking(keys)
for number, chunk in enumerate(loaded):
    check(number, chunk.byte_array, block_bytes)
with phase("delete"):
    disk.remove(keys[0])
