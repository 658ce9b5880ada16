"""What a byte costs among others: how many were active at once, the fit over it, and where slow operations lost time.

Never: a table of the run as a whole, or a plot.
"""
