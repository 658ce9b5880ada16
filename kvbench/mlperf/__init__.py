"""Submissions to MLPerf Storage, KV cache: the sequence of trials, the tree they are handed in as, and its checker.

Here lives what the rules of that benchmark say. Never: how a run measures (`run`), or what an operation costs.
"""
