"""A run that is decided and not carried out: every look-up, hit, write and eviction of its requests, counted.

The forecast of a run and `kvbench plan` are made of it. Never: bytes, or a figure that depends on how fast storage is.
"""
