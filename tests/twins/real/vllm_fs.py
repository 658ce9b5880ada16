"""vLLM's tier on a filesystem below its offloading to memory: the C code that stores and loads, and the names of files.

vLLM itself is not started. Its package need not be complete: what is imported of it are the modules that move bytes and
name files. The C code is linked with CUDA's libraries, of which it calls nothing; where they are missing, empty ones
stand in (packages.py), so that what runs is what would run beside a GPU.
"""

import hashlib
import mmap

from common import asked, check, content, phase
from vllm.fs_io_C import batch_lookup
from vllm.v1.kv_offload.tiering.fs import io

directory, block_bytes, blocks = asked()
direct = io.probe_o_direct(directory)
digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(blocks)]
paths = [f"{directory}/model_r0/{digest[:3]}/{digest[3:5]}_g0/{digest}.bin" for digest in digests]
pages = mmap.mmap(-1, block_bytes * blocks)
view = memoryview(pages)
offsets = [number * block_bytes for number in range(blocks)]
for number, offset in enumerate(offsets):
    view[offset : offset + block_bytes] = content(number, block_bytes)
with phase("look-up"):
    assert not any(batch_lookup(paths))
with phase("store"):
    io.batch_store_block(paths, view, offsets, block_bytes, direct)
view[:] = bytes(len(view))
with phase("found"):
    assert all(batch_lookup(paths))
with phase("load"):
    io.batch_load_block(paths, view, offsets, block_bytes, direct)
for number, offset in enumerate(offsets):
    check(number, view[offset : offset + block_bytes], block_bytes)
