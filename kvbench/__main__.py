"""`python -m kvbench`: the same as the command `kvbench`."""

from kvbench.commands.main import main

main()
