"""A rank's work: what to do next is decided in one place, and threads carry it out and record it.

Here live decisions in time order, workers, a rank's part in a shared key space. Never: MPI, or how bytes are moved.
"""
