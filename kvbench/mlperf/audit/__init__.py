"""What the figures of a submission cover and what they do not, with evidence: beyond the rules, which `rules` has.

Never: how a tree is read (`tree`), whether a rule is kept (`check`), and an opinion about whoever submitted it.
"""
