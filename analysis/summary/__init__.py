"""What one run amounts to: its tables together, what must be known before believing them, and their print.

Never: a figure of its own; those are `figures`, `condensed` and `contention`.
"""
