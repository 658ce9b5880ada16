"""The sequence of trials: what was asked for, run after run in one MPI job, and their results in the rules' terms.

Never: how a submission is laid out or checked.
"""
