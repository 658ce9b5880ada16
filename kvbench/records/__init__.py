"""The rows of a run and their files: the schema, every table of the run file, reading and writing, the spill file.

Here lives what a row means and how it is kept. Never: MPI, configuration, or how an operation is carried out.
"""
