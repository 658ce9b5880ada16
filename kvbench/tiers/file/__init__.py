"""Objects as files: the tier, the directories of a run and what killed runs left in them, and a probe of the paths.

All that only a filesystem has lives here, and other packages ask for it through the contract alone. Never: MPI.
"""
