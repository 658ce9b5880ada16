"""Ranks and nodes: the communicator, agreement, gathering, clocks, launching. The only package that loads MPI.

Here lives what travels between ranks, and the facts of the node that a rank runs on.
Never: what a run measures or keeps. Nothing here is called inside a timed span.
"""
