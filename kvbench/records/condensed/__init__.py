"""What is kept of rows that are not all kept: exact sums, histograms, and a uniform sample.

Here live layouts and arithmetic of `records: sampled` and `histogram`. Never: MPI; ranks are merged by `cluster.merge`.
"""
