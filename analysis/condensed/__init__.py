"""The figures of files that do not hold every row: of exact sums, histograms or a sample.

The same tables as `figures`, of what the file has. Never: a figure that only rows could give.
"""
