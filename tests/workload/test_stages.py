"""What each kind of request asks for, and in what order, given what it finds."""

from collections.abc import Callable
from dataclasses import replace

from kvbench.workload.request import ObjectRef, Request
from kvbench.workload.stages import Stage, next_stage, stages_of

HISTORY = (ObjectRef(1, 10), ObjectRef(2, 20))
CONTEXT = (ObjectRef(3, 30), ObjectRef(4, 40))
ONE, TWO = CONTEXT


def request(**fields: object) -> Request:
    usual = Request(
        number=0,
        user=0,
        qos=0,
        arrival_ns=0,
        context_tokens=70,
        output_tokens=5,
        history=HISTORY,
        context=CONTEXT,
        prefill=True,
        decode_passes=2,
        generation_ns=0,
    )
    return replace(usual, **fields)  # type: ignore[arg-type]


def asked_for(asking: Request, is_there: Callable[[int], bool]) -> list[Stage]:
    """All stages of a request that finds the objects that `is_there` says."""
    asked = stages_of(asking)
    found = []
    stage = next_stage(asked)
    while stage is not None:
        found.append(stage)
        stage = next_stage(asked, [is_there(reference.key) for reference in (*stage.history, *stage.context)])
    return [stage for stage in found if stage != Stage()]


def test_a_request_looks_everything_up_writes_what_is_missing_and_decodes() -> None:
    assert asked_for(request(), lambda key: key != 4) == [
        Stage(history=HISTORY, context=CONTEXT),
        Stage(writes=(TWO,)),
        Stage(context=CONTEXT, decodes=True),
        Stage(context=CONTEXT, decodes=True),
    ]


def test_history_that_is_missing_is_not_written_again() -> None:
    assert Stage(writes=CONTEXT) in asked_for(request(), lambda key: False)


def test_a_request_that_does_not_prefill_writes_nothing() -> None:
    found = asked_for(request(prefill=False), lambda key: False)
    assert found == [Stage(history=HISTORY, context=CONTEXT), *[Stage(context=CONTEXT, decodes=True)] * 2]


def test_a_request_that_was_handed_over_does_nothing_but_decode() -> None:
    assert asked_for(request(handed_over=True), lambda key: True) == [Stage(context=CONTEXT, decodes=True)] * 2


def test_generation_comes_after_each_decode_pass_in_equal_parts() -> None:
    found = asked_for(request(generation_ns=80, prefill=False), lambda key: True)
    assert found[1:] == [
        Stage(context=CONTEXT, decodes=True),
        Stage(context=CONTEXT, delay_ns=40, decodes=True),
        Stage(delay_ns=40),
    ]


def stepwise(**fields: object) -> Request:
    return request(in_steps=True, **fields)


def test_step_by_step_a_request_asks_for_one_thing_at_a_time() -> None:
    assert asked_for(stepwise(prompt_tokens=6, generation_ns=9), lambda key: True) == [
        Stage(unknown_tokens=6),
        *(Stage(history=(reference,)) for reference in HISTORY),
        *(Stage(writes=(reference,)) for reference in CONTEXT),
        *(Stage(context=(reference,), decodes=True) for reference in CONTEXT),
        *(Stage(context=(reference,), decodes=True) for reference in CONTEXT),
        Stage(delay_ns=9),
    ]


def test_step_by_step_what_is_gone_when_it_is_first_to_be_decoded_is_written_again_and_not_read() -> None:
    assert asked_for(stepwise(generation_ns=9), lambda key: key != 4)[4:] == [
        Stage(context=(ONE,), decodes=True),
        Stage(context=(TWO,), decodes=True),
        Stage(writes=(ONE,)),
        Stage(writes=(TWO,)),
        Stage(delay_ns=9),
    ]


def test_step_by_step_what_is_gone_later_is_not_written_again() -> None:
    reads: list[int] = []

    def is_there(key: int) -> bool:
        reads.append(key)
        return reads.count(4) < 2

    assert (
        asked_for(stepwise(decode_passes=3), is_there)[4:] == [Stage(context=(r,), decodes=True) for r in CONTEXT] * 3
    )
