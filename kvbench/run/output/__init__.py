"""The files that a run leaves: the run file on rank 0, and the spill file of each rank while it runs.

Here lives what goes into them and where they lie. Never: their layout (`records`).
"""
