"""What a request asks of the cache, stage by stage. This is the one place where it is written: the engine carries it
out, the forecast counts it, and the reference workload is played through with it.

How a stage is carried out, and when, is theirs; so are the cache and the clock. Nothing here knows where objects are.
"""

from collections.abc import Generator, Sequence
from typing import NamedTuple

from kvbench.workload.request import ObjectRef, Request


class Stage(NamedTuple):
    """What is asked for at one time. The next stage follows when all of it is done."""

    history: tuple[ObjectRef, ...] = ()
    """Objects of earlier turns: looked up in this order, and read where they are found."""
    context: tuple[ObjectRef, ...] = ()
    """The request's own objects, likewise, after the history."""
    writes: tuple[ObjectRef, ...] = ()
    """Objects to be written, but for those that somebody has written meanwhile."""
    unknown_tokens: int = 0
    """Tokens of a look-up for what nobody ever writes, and which is thus never found; 0 for none."""
    delay_ns: int = 0
    """Simulated generation, before the rest of the stage."""
    decodes: bool = False
    """`context` is read once more, for decoding: it was looked up, or written, before."""


Stages = Generator[Stage, Sequence[bool] | None, None]
"""Gives stages, and is sent which objects of the stage before were found: history first, then context."""


def stages_of(request: Request) -> Stages:
    """What `request` asks for. With `in_steps` a stage is one thing to be done, and is to be carried out, decisions
    included, before the next is asked for; else all stages are to be decided on when the request starts."""
    return _one_by_one(request) if request.in_steps else _at_once(request)


def next_stage(stages: Stages, found: Sequence[bool] | None = None) -> Stage | None:
    """The stage that follows, given what the one before has found; None: the request has asked for everything."""
    try:
        return stages.send(found)
    except StopIteration:
        return None


def _at_once(request: Request) -> Stages:
    """Look-ups first, then the writes of what is missing, then the decode reads: a stage only ever waits for what was
    decided before it."""
    if not request.handed_over:
        found = yield Stage(history=request.history, context=request.context)
        if request.prefill:
            yield Stage(writes=_missing(request, found))
    delay_ns = request.generation_ns // max(1, request.decode_passes)
    for decode_pass in range(request.decode_passes):
        yield Stage(context=request.context, delay_ns=delay_ns if decode_pass else 0, decodes=True)
    yield Stage(delay_ns=delay_ns)


def _missing(request: Request, found: Sequence[bool] | None) -> tuple[ObjectRef, ...]:
    assert found is not None, "the answer to the look-ups"
    there = found[len(request.history) :]
    return tuple(reference for reference, is_there in zip(request.context, there, strict=True) if not is_there)


def _one_by_one(request: Request) -> Stages:
    """As the reference does it: what is gone when it is first to be decoded is written again, and then not read."""
    if request.prompt_tokens:
        yield Stage(unknown_tokens=request.prompt_tokens)
    for reference in request.history:
        yield Stage(history=(reference,))
    if request.prefill:
        yield from _writes(request)
    for decode_pass in range(request.decode_passes):
        gone = False
        for reference in request.context:
            gone |= (yield Stage(context=(reference,), decodes=True)) != [True]
        if gone and decode_pass == 0:
            yield from _writes(request)
            break
    if request.generation_ns:
        yield Stage(delay_ns=request.generation_ns)


def _writes(request: Request) -> Stages:
    for reference in request.context:
        yield Stage(writes=(reference,))
