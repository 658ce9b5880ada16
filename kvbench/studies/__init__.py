"""Experiments made of many cells or runs: what a host copy costs (`copy_path`), how a workload scales (`scaling`)."""
