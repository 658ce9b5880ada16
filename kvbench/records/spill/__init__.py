"""The file that a rank appends its rows to while it runs, and a run file made of what killed ranks left.

Never: MPI, and where such a file is put (`run.output`).
"""
