"""Submissions to MLPerf Storage, KV cache: the sequence of trials, the tree they are handed in as, and its checker."""
