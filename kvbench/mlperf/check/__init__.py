"""The verdict on a submission tree: every rule over every part of it, printed, and the table of results.

Never: a rule (`rules`), or how a tree is read (`tree`).
"""
