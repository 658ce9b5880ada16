"""Benchmark of the storage behind the KV cache of an LLM service: device, host and run-queue time per operation."""

from importlib.metadata import version

__version__ = version("kvbench")
