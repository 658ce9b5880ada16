"""SGLang's HiCache with the storage backend `file`, called as its controller does: pages one after the other."""

import torch
from common import asked, check, content, phase
from sglang.srt.mem_cache.hicache_storage import HiCacheFile, HiCacheStorageConfig

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
)
cache = HiCacheFile(settings, directory)
keys = [f"{number:064x}" for number in range(blocks)]
source = [torch.frombuffer(bytearray(content(number, block_bytes)), dtype=torch.uint8) for number in range(blocks)]
target = [torch.zeros(block_bytes, dtype=torch.uint8) for _ in range(blocks)]
with phase("look-up"):
    assert cache.batch_exists(keys) == 0
with phase("store"):
    assert cache.batch_set(keys, source)
with phase("found"):
    assert cache.batch_exists(keys) == blocks
with phase("load"):
    cache.batch_get(keys, target)
for number, page in enumerate(target):
    check(number, page.numpy(), block_bytes)
