"""Print what a trace says of the files whose path has FOLDER in it: `python tests/twins/show.py TRACE FOLDER`."""

import sys
from pathlib import Path

from calls import read_calls


def main(trace: str, folder: str) -> None:
    for call in read_calls(Path(trace)):
        if folder in call.path:
            print(f"{call.phase:8} {call.thread} {call.what:50} {call.path[-40:]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
