"""Every rank gives numbers of its own; all of them, however many they are, must come back summed on every rank."""

from kvbench.cluster.broadcast import total
from kvbench.cluster.comm import get_world

MOST = 2000


def main() -> None:
    """Sum longer and longer lists. What is sent must outlive the call: a list may not reuse the memory of another."""
    comm = get_world()
    wrong = 0
    for number in (1, 8, 128, 129, 1000, MOST):
        mine = [comm.rank * MOST + place for place in range(number)]
        expected = [sum(rank * MOST + place for rank in range(comm.size)) for place in range(number)]
        wrong += list(total(comm, *mine)) != expected
    print(f"rank {comm.rank}: {wrong} wrong", flush=True)


main()
