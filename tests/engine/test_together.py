"""Ranks that serve together: a request goes on when each of them has loaded its part."""

from kvbench.engine.operation import ActiveRequest
from kvbench.engine.together import Together
from kvbench.records.schema import Phase
from kvbench.workload.request import Request


def active(number: int) -> ActiveRequest:
    return ActiveRequest(Request(number, 0, 0, 0, 16, 1, (), (), True, 0, 0), Phase.MEASURE, 0, 0)


def test_a_request_goes_on_when_the_last_of_the_group_has_loaded() -> None:
    here, first, second = Together(3), active(4), active(9)
    here.wait(first)
    here.wait(second)
    assert here.say() == [4, 9]
    assert here.say() == []
    assert here.take_in([4, 9, 9]) == []
    assert here.take_in([9]) == [second]
    assert here.take_in([4, 4]) == [first]


def test_others_may_be_ahead() -> None:
    here, late = Together(2), active(1)
    assert here.take_in([1]) == []
    here.wait(late)
    assert here.take_in(here.say()) == [late]
