"""The modelled GPU: prefill one after the other, decode together."""

from kvbench.config.load import parse_config
from kvbench.engine.modelled_gpu import ModelledGpu
from kvbench.workload.compute_time import ComputeTime

TIMES = ComputeTime(
    parse_config(
        {
            "workload": {"kind": "trace", "path": "x"},
            "pacing": {"mode": "open"},
            "compute": {"gpu": "h100-sxm"},
        },
        "test",
    )
)


def test_prefills_wait_for_each_other() -> None:
    gpu, ns = ModelledGpu(TIMES), TIMES.prefill_ns(1000, 0)
    assert gpu.prefill(1000, 0, 50) == 50 + ns
    assert gpu.prefill(1000, 0, 60) == 50 + 2 * ns
    assert gpu.prefill(1000, 0, 10 * ns) == 11 * ns
    assert gpu.prefill(0, 1000, 7) == 7


def test_what_decodes_shares_its_steps() -> None:
    gpu = ModelledGpu(TIMES)
    assert gpu.decode(1000, 50, 0) == TIMES.decode_ns(1000, 50, 1)
    assert gpu.decode(1000, 50, 5) == 5 + TIMES.decode_ns(1000, 50, 2)
    gpu.decoded()
    assert gpu.decode(1000, 50, 9) == 9 + TIMES.decode_ns(1000, 50, 2)
