"""LMCache's filesystem adapter of C++ threads, of its distributed storage (a second level below memory)."""

import select

from common import asked, check, content, phase
from lmcache.lmcache_fs import LMCacheFSClient

directory, block_bytes, blocks = asked()
client = LMCacheFSClient(directory, 4, "", False, 0)
keys = [f"model@0x01000100@0@{number:064x}" for number in range(blocks)]
source = [memoryview(bytearray(content(number, block_bytes))) for number in range(blocks)]
target = [memoryview(bytearray(block_bytes)) for _ in range(blocks)]


def wait() -> object:
    while True:
        select.select([client.event_fd()], [], [])
        if done := client.drain_completions():
            return done


with phase("look-up"):
    client.submit_batch_exists(keys)
    wait()
with phase("store"):
    client.submit_batch_set(keys, source)
    wait()
with phase("found"):
    client.submit_batch_exists(keys)
    wait()
with phase("load"):
    client.submit_batch_get(keys, target)
    wait()
for number, chunk in enumerate(target):
    check(number, chunk, block_bytes)
with phase("delete"):
    client.submit_batch_delete(keys[:1])
    wait()
client.close()
