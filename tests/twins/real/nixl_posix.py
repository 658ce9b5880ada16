"""SGLang's HiCache with the storage backend `nixl`, whose backend is POSIX, called as its controller does: all pages of
a request at once. SGLang's host memory is stood in for: it is a place of bytes here, and has nothing to do with files.
"""

import sys
from types import ModuleType

import torch
from common import asked, check, phase

_pools = ModuleType("sglang.srt.mem_cache.pool_host")
_pools.HostKVCache = object  # type: ignore[attr-defined]
sys.modules[_pools.__name__] = _pools

from sglang.srt.mem_cache.hicache_storage import HiCacheStorageConfig  # noqa: E402
from sglang.srt.mem_cache.storage.nixl.hicache_nixl import HiCacheNixl  # noqa: E402

PAGE_TOKENS = 64


class HostMemory:
    """Pages of bytes, as much of SGLang's HostKVCache as is asked for here."""

    layout = "layer_first"
    page_size = PAGE_TOKENS
    pin_memory = False

    def __init__(self, page_bytes: int, pages: int) -> None:
        self.page_bytes = page_bytes
        self.kv_buffer = torch.zeros(page_bytes * pages, dtype=torch.uint8)

    def get_dummy_flat_data_page(self) -> torch.Tensor:
        return torch.zeros(self.page_bytes, dtype=torch.uint8)

    def get_data_page(self, token: int, flat: bool = True) -> torch.Tensor:
        first = int(token) // PAGE_TOKENS * self.page_bytes
        return self.kv_buffer[first : first + self.page_bytes]

    def set_from_flat_data_page(self, token: int, page: torch.Tensor) -> None:
        self.get_data_page(token)[:] = page


directory, block_bytes, blocks = asked()
settings = HiCacheStorageConfig(
    tp_rank=0,
    tp_size=1,
    pp_rank=0,
    pp_size=1,
    attn_cp_rank=0,
    attn_cp_size=1,
    is_mla_model=False,
    enable_storage_metrics=False,
    is_page_first_layout=False,
    model_name="model",
    extra_config={"plugin": {"posix": {"active": True}}, "l3_cleaner_enabled": False},
)
cache = HiCacheNixl(settings, directory)
memory = HostMemory(block_bytes, blocks)
cache.register_mem_pool_host(memory)
keys = [f"{number:064x}" for number in range(blocks)]
tokens = torch.arange(blocks * PAGE_TOKENS)
for number in range(blocks):
    memory.get_data_page(number * PAGE_TOKENS)[:] = number % 251 + 1
with phase("look-up"):
    assert cache.batch_exists(keys) == 0
with phase("store"):
    assert all(cache.batch_set_v1(keys, tokens))
memory.kv_buffer.zero_()
with phase("found"):
    assert cache.batch_exists(keys) == blocks
with phase("load"):
    assert all(cache.batch_get_v1(keys, tokens))
for number in range(blocks):
    check(number, memory.get_data_page(number * PAGE_TOKENS).numpy(), block_bytes)
