"""From a run file to pandas: loading, grouping, windows, percentiles and intervals that every analysis leans on.

Never: a finding, a warning or a print.
"""
