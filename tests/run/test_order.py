"""The order of a run and the plan that rank 0 makes of it, on their way to other ranks and other processes."""

import json
import os
from dataclasses import fields, replace
from pathlib import Path

from kvbench.config.load import parse_config
from kvbench.config.virtual_speed import VirtualSpeed
from kvbench.run.order import Order, Plan
from kvbench.run.output.spill_files import SpillOrder
from kvbench.run.steady_state import PreconditionOrder
from kvbench.studies.one_run import arguments_of

ORDER = Order(
    source="smoke",
    directory="/mnt/" + os.fsdecode(b"\xff not text"),
    out=Path("kvbench-out/run.h5"),
    overrides=("workload.users=4", "io.threads=2"),
    engine="vllm-fs",
    overwrite=True,
    gather="nodes",
    gather_memory_bytes=1 << 20,
    expect="shared",
    patience_s=2.5,
    spill=SpillOrder(False, Path("/var/tmp")),
    consent_devices=("/dev/disk-under-test",),
    run_id="20260102-030405-0123ab",
    metrics=("::1", 9464),
    precondition=PreconditionOrder(2.0, 1.5, 7),
    speed=VirtualSpeed("copies", 2.5),
)
"""Nothing in it is as it would be if it were not said."""


def sent(content: object) -> object:
    """`content` as it arrives elsewhere."""
    return json.loads(json.dumps(content))


def test_an_order_arrives_as_it_was_sent_whatever_is_in_it() -> None:
    least = Order(source="smoke", directory=None, out=Path("x.h5"))
    assert [field.name for field in fields(Order) if getattr(ORDER, field.name) == getattr(least, field.name)] == [
        "source"
    ]
    assert Order.from_json(sent(ORDER.to_json())) == ORDER
    assert Order.from_json(sent(least.to_json())) == least


def test_a_run_of_a_study_is_told_all_that_stands_in_its_order() -> None:
    (argument,) = arguments_of(ORDER)
    assert Order.from_json(json.loads(argument)) == ORDER


def test_every_rank_has_the_plan_that_rank_0_made() -> None:
    config = parse_config({"workload": {"kind": "trace", "path": "/t"}, "pacing": {"mode": "asap"}}, "test")
    plan = Plan(ORDER, config, "20260101-000000-abcdef", "0" * 16, "2026-01-01T00:00:00", {"trace_requests": 7})
    assert Plan.from_json(sent(plan.to_json())) == plan
    assert Plan.from_json(sent(replace(plan, trace={}).to_json())) == replace(plan, trace={})
