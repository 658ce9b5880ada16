"""Moving bytes: the contract of a tier, the kinds of tiers, the memory that bytes land in, and what they are.

A new kind of tier is one file here and one line in its table. Never: a decision about which object goes where.
"""
