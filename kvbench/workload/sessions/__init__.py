"""Conversations and agents that are made up, as a trace of each rank's own; and parameters that fit a recorded trace.

The same on every machine: no draw depends on a mathematics library. Never: files, storage, or another rank's users.
"""

from kvbench.workload.sessions.make import made_part, made_trace

__all__ = ["made_part", "made_trace"]
