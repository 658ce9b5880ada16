"""From a results directory to a submission tree: copies of the source, the system's description, its PDF.

Here lives what writes a tree. Never: a rule, or a figure that the results do not hold.
"""
