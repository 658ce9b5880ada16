"""How a command gets its ranks: it finds itself among them, or starts mpirun and passes signals and exit codes on.

Here lives what runs beside a job, outside MPI. Never: anything that a rank does once it has started.
"""
