"""An LMCache without a GPU and without an engine: its settings, keys, and memory for chunks."""

import asyncio
import threading

import torch
from common import content
from lmcache.utils import CacheEngineKey
from lmcache.v1.config import LMCacheEngineConfig
from lmcache.v1.memory_management import MemoryFormat, MemoryObj
from lmcache.v1.metadata import LMCacheMetadata
from lmcache.v1.storage_backend.local_cpu_backend import LocalCPUBackend

CHUNK_TOKENS = 256
"""LMCache's own default."""


class Setup:
    """What its storage backends are made with. A chunk has `block_bytes`, a multiple of 4 KiB."""

    def __init__(self, block_bytes: int, **settings: object) -> None:
        hidden = block_bytes // (CHUNK_TOKENS * 2 * 2)
        self.shape = torch.Size([2, 1, CHUNK_TOKENS, hidden])
        self.config = LMCacheEngineConfig.from_defaults(
            chunk_size=CHUNK_TOKENS, local_cpu=False, max_local_cpu_size=1, **settings
        )
        self.metadata = LMCacheMetadata(
            model_name="model",
            world_size=1,
            local_world_size=1,
            worker_id=0,
            local_worker_id=0,
            kv_dtype=torch.bfloat16,
            kv_shape=(1, 2, CHUNK_TOKENS, 1, hidden),
        )
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.memory = LocalCPUBackend(self.config, self.metadata, "cpu")

    def key(self, number: int) -> CacheEngineKey:
        return CacheEngineKey("model", 1, 0, 0x1234567800000000 + number, torch.bfloat16)

    def chunk(self, number: int, block_bytes: int) -> MemoryObj:
        held = self.memory.allocate(self.shape, torch.bfloat16, MemoryFormat.KV_2LTD)
        assert held is not None
        memoryview(held.byte_array).cast("B")[:] = content(number, block_bytes)
        return held
