"""A storage model from run files: what its operations took, as they depend on size and load.

Never: a prediction of a run, which `kvbench plan` makes with it.
"""
