"""Mooncake's store with buckets of objects below its memory, and io_uring."""

from mooncake_setup import store_and_load

store_and_load("bucket_storage_backend", MOONCAKE_OFFLOAD_USE_URING="1")
