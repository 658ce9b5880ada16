"""How throughput grows with ranks: the fit of the Universal Scalability Law, and the table of a scaling study.

Never: the runs that the study consists of.
"""
