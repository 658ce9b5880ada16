"""Twins of engines beside each other on one storage: the figures of each run, and the table of a study of them.

Here lives what `kvbench study engines` says. Never: running anything.
"""
