"""What a second copy costs: cells, tables and sentences of a copy-path study.

Never: the measurement itself, which is `kvbench.studies`.
"""
