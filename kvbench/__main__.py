"""`python -m kvbench`, and the command `kvbench`, which is the same.

Loading a command takes some tenths of a second, in which nothing is made. Until it is loaded Ctrl-C ends this program
as it ends any other, without a traceback of Python's; from then on see `cluster.signals`.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from kvbench.commands.main import main

if __name__ == "__main__":
    main()
