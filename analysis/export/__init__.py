"""A run's tables as files that other programs query, piece by piece.

Never: a figure, or a file in kvbench's own format.
"""
