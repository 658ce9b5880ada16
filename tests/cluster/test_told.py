"""What is said of ranks that were told different things."""

from kvbench.cluster.comm import SerialComm
from kvbench.cluster.told import COMMAND, check_told, differences

FIRST = {COMMAND: "kvbench run", "directory": "--dir a", "out": "--out x"}


def test_only_what_differs_is_said() -> None:
    assert differences(FIRST, FIRST) == ""
    assert differences(FIRST | {"directory": "--dir b"}, FIRST) == "--dir b (rank 0: --dir a)"
    assert differences(FIRST | {"set 1": "--set a=1"}, FIRST) == "--set a=1 (rank 0: nothing)"


def test_of_another_command_nothing_else_is_said() -> None:
    assert differences({COMMAND: "kvbench study", "size": "--size 1"}, FIRST) == "kvbench study (rank 0: kvbench run)"


def test_a_mistake_of_rank_0_alone_is_said_on_all_others() -> None:
    assert differences(FIRST, "No such option") == "a command line without a mistake (rank 0: No such option)"
    assert differences("No such option", "No such option") == ""


def test_what_a_user_said_at_great_length_is_cut() -> None:
    assert len(differences(FIRST | {"out": "x" * 10**6}, FIRST | {"out": "y" * 10**6})) < 1000


def test_a_rank_alone_was_told_the_same_as_all() -> None:
    check_told(SerialComm(), FIRST, "advice")
