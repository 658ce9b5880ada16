"""Mooncake's store with a file for each object below its memory."""

from mooncake_setup import store_and_load

store_and_load("file_per_key_storage_backend")
