"""The same work on several targets: whether runs may be compared, by which figures, and what is more than chance.

Never: the figures of one run alone (`figures`, `summary`).
"""
