"""Whether the others are still there: connections between nodes, and a thread that ends a rank that waits in vain.

Here lives what notices a silent rank, node or launcher. Never: MPI, or what a run does when all is well.
"""
