"""LMCache's raw block adapter, of its distributed storage, on a file in the place of a block device."""

import os
import select

import torch
from common import asked, check, content, phase
from lmcache.v1.distributed.api import ObjectKey
from lmcache.v1.distributed.l2_adapters.raw_block_l2_adapter import RawBlockL2Adapter, RawBlockL2AdapterConfig
from lmcache.v1.memory_management import MemoryFormat, MemoryObj, MemoryObjMetadata, TensorMemoryObj

HEADER_BYTES = 4096
"""LMCache's own default, and its alignment."""
DIRECTORY_BYTES = 1 << 20
"""Where LMCache keeps what is where; 256 MiB where nothing is said."""

directory, block_bytes, blocks = asked()
slot_bytes = HEADER_BYTES + block_bytes
device = f"{directory}/slots.device"
with open(device, "wb") as file:
    os.posix_fallocate(file.fileno(), 0, DIRECTORY_BYTES + blocks * slot_bytes)
config = RawBlockL2AdapterConfig(device_path=device, slot_bytes=slot_bytes, meta_total_bytes=DIRECTORY_BYTES)
adapter = RawBlockL2Adapter(config)


def memory() -> MemoryObj:
    held = torch.zeros(block_bytes + HEADER_BYTES, dtype=torch.uint8)
    first = -held.data_ptr() % HEADER_BYTES
    facts = MemoryObjMetadata(
        shape=torch.Size([block_bytes]),
        dtype=torch.uint8,
        address=0,
        phy_size=block_bytes,
        fmt=MemoryFormat.BINARY,
        ref_count=1,
    )
    return TensorMemoryObj(held[first : first + block_bytes], facts, None)


def wait(event: int) -> None:
    select.select([event], [], [])
    os.eventfd_read(event)


def found() -> int:
    task = adapter.submit_lookup_and_lock_task(keys, {})
    wait(adapter.get_lookup_and_lock_event_fd())
    return str(adapter.query_lookup_and_lock_result(task)).count("1")


keys = [ObjectKey(bytes([number]) * 32, "model", 0) for number in range(blocks)]
source = [memory() for _ in keys]
target = [memory() for _ in keys]
for number, chunk in enumerate(source):
    memoryview(chunk.byte_array).cast("B")[:] = content(number, block_bytes)
with phase("look-up"):
    assert found() == 0
with phase("store"):
    adapter.submit_store_task(keys, source)
    wait(adapter.get_store_event_fd())
with phase("found"):
    assert found() == blocks
with phase("load"):
    adapter.submit_load_task(keys, target)
    wait(adapter.get_load_event_fd())
for number, chunk in enumerate(target):
    check(number, chunk.byte_array, block_bytes)
with phase("delete"):
    adapter.close()
