"""Mooncake's master and store on this machine, whose store keeps objects below a directory as well as in memory. What
is loaded comes from there, as the copies in memory are given up before.
"""

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from common import asked, check, content, phase

MEMORY_BYTES = 64 << 20
SECONDS = 30


def store_and_load(backend: str, **settings: str) -> None:
    """Blocks as they are asked for, with `backend` and what environment variables of Mooncake's say."""
    directory, block_bytes, blocks = asked()
    os.environ |= {
        "MOONCAKE_OFFLOAD_STORAGE_BACKEND_DESCRIPTOR": backend,
        "MOONCAKE_OFFLOAD_FILE_STORAGE_PATH": directory,
        "MOONCAKE_OFFLOAD_HEARTBEAT_INTERVAL_SECONDS": "1",
        "MOONCAKE_OFFLOAD_LOCAL_BUFFER_SIZE_BYTES": str(MEMORY_BYTES),
        "MOONCAKE_OFFLOAD_TOTAL_SIZE_LIMIT_BYTES": str(1 << 30),
        # A bucket is written when it is full.
        "MOONCAKE_OFFLOAD_BUCKET_KEYS_LIMIT": str(blocks),
    }
    os.environ |= settings

    import mooncake  # noqa: PLC0415 - reads the environment
    from mooncake.store import MooncakeDistributedStore  # noqa: PLC0415

    ports = [_free_port(), _free_port()]
    program = Path(mooncake.__file__).parent / "mooncake_master"
    options = [f"--rpc_port={ports[0]}", f"--metrics_port={ports[1]}", "--enable_offload=true"]
    master = subprocess.Popen([str(program), *options, "--default_kv_lease_ttl=1"])
    try:
        _wait_for(ports[0])
        store = MooncakeDistributedStore()
        master_at = f"127.0.0.1:{ports[0]}"
        memory = (MEMORY_BYTES, MEMORY_BYTES)
        if store.setup("127.0.0.1", "P2PHANDSHAKE", *memory, "tcp", "", master_at, None, True, directory):
            raise RuntimeError("Mooncake's store did not start")
        keys = [f"block-{number}.object" for number in range(blocks)]
        with phase("look-up"):
            assert sum(store.batch_is_exist(keys)) == 0
        with phase("store"):
            for number, key in enumerate(keys):
                assert store.put(key, content(number, block_bytes)) == 0
            _wait_until_stored(store, keys)
        _give_up_memory(store, keys)
        with phase("found"):
            assert sum(store.batch_is_exist(keys)) == blocks
        with phase("load"):
            loaded = store.get_batch(keys)
        for number, block in enumerate(loaded):
            check(number, block, block_bytes)
        store.close()
        # It says good-bye to its master, and waits long for one that is gone.
        del store
    finally:
        master.terminate()
        master.wait()


def _wait_until_stored(store: Any, keys: list[str]) -> None:
    """Raises TimeoutError."""
    for _ in range(SECONDS * 10):
        if sum(any(copy.is_local_disk_replica() for copy in copies) for copies in _copies(store, keys)) == len(keys):
            return
        time.sleep(0.1)
    raise TimeoutError("Mooncake did not store what it was given")


def _give_up_memory(store: Any, keys: list[str]) -> None:
    """What was asked for a moment ago stays a little longer. Raises TimeoutError."""
    for _ in range(SECONDS * 10):
        store.batch_replica_clear(keys, store.get_hostname())
        if not any(copy.is_memory_replica() for copies in _copies(store, keys) for copy in copies):
            return
        time.sleep(0.1)
    raise TimeoutError("Mooncake did not give up what it has in memory")


def _copies(store: Any, keys: list[str]) -> list[list[Any]]:
    """Where each object lies."""
    return list(store.batch_get_replica_desc(keys).values())


def _free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


def _wait_for(port: int) -> None:
    for _ in range(SECONDS * 10):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("Mooncake's master did not start")
