"""The runs of many run files in the order of time: what was found, and how each differs from the one before.

Never: a figure that `summary` and `compare` do not have.
"""
