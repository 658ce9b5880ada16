"""LMCache's connector for shared filesystems, behind the backend that an engine calls."""

import time

from common import asked, check, phase
from lmcache.v1.storage_backend.remote_backend import RemoteBackend
from lmcache_setup import Setup

directory, block_bytes, blocks = asked()
setup = Setup(block_bytes, remote_url=f"fs://host:0{directory}", remote_serde="naive")
remote = RemoteBackend(setup.config, setup.metadata, setup.loop, setup.memory)
keys = [setup.key(number) for number in range(blocks)]
chunks = [setup.chunk(number, block_bytes) for number in range(blocks)]
with phase("look-up"):
    assert not remote.contains(keys[0])
with phase("store"):
    remote.batched_submit_put_task(keys, chunks)
    while any(remote.exists_in_put_tasks(key) for key in keys):
        time.sleep(0.001)
with phase("found"):
    assert all(remote.contains(key) for key in keys)
with phase("load"):
    loaded = remote.batched_get_blocking(keys)
for number, chunk in enumerate(loaded):
    check(number, chunk.byte_array, block_bytes)
