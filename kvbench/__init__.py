"""Benchmark of the storage behind the KV cache of an LLM service: device, host and run-queue time per operation."""

import os

if {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "MV2_COMM_WORLD_RANK"} & set(os.environ):
    # A rank multiplies no matrices: numpy's library for that would start a thread for each processor of the node.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def __getattr__(name: str) -> str:
    """`__version__`, looked up when it is asked for: only what writes or shows it has to."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # noqa: PLC0415 - no rank but the first needs it

    return version("kvbench")
