"""Experiments made of many cells or runs: what a host copy costs (`copy_path`), how a workload scales (`scaling`).

Here lives what is measured in which order. Never: what comes of it, which is `kvbench_analysis`.
"""
