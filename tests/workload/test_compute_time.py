"""The modelled time of a GPU: the formulas worked out by hand, and what every such model must obey."""

import pytest

from kvbench.config.compute import shipped_gpus
from kvbench.config.load import parse_config
from kvbench.config.models import shipped_models
from kvbench.config.run_config import RunConfig
from kvbench.errors import KvbenchError
from kvbench.workload.compute_time import ComputeTime


def config_of(model: object = "llama3.1-8b", **compute: object) -> RunConfig:
    content = {
        "model": model,
        "workload": {"kind": "trace", "path": "x"},
        "pacing": {"mode": "open"},
        "compute": {"gpu": "h100-sxm", **compute},
    }
    return parse_config(content, "test")


def test_prefill_is_bound_by_operations_with_the_term_of_attention() -> None:
    # 2 x 8.03e9 x n, and 2 x 32 layers x 32 heads x (128 + 128) a pair; half of 989e12 a second.
    n, p = 4096, 12_000
    flops = 2 * 8.03e9 * n + 2 * 32 * 32 * 256 * (n * p + n * (n + 1) / 2)
    assert ComputeTime(config_of()).prefill_ns(n, p) == pytest.approx(flops / (989e12 * 0.5) * 1e9)


def test_decode_of_one_is_bound_by_the_weights_and_the_cache() -> None:
    # 16 bits a weight, 131 072 bytes a token seen; 0.6 of 3 350e9 bytes a second. The first token is prefill's.
    step_s = (2 * 8.03e9 + 131_072 * (1000 + 50)) / (3350e9 * 0.6)
    assert ComputeTime(config_of()).decode_ns(1000, 100, 1) == pytest.approx(99 * step_s * 1e9)


def test_one_new_token_reads_all_weights_all_the_same() -> None:
    times = ComputeTime(config_of())
    assert times.prefill_ns(1, 0) == pytest.approx((2 * 8.03e9 + 131_072) / (3350e9 * 0.6) * 1e9)
    assert times.prefill_ns(0, 5) == 0


def test_a_mixture_of_experts_reads_what_its_tokens_use() -> None:
    times = ComputeTime(config_of("gpt-oss-20b"))
    alone, many = (times.decode_ns(100, 2, batch) for batch in (1, 64))
    assert alone == pytest.approx((3.61e9 * 4.25 / 8 + 49_152 * 101) / (3350e9 * 0.6) * 1e9)
    assert many > alone * 20.91 / 3.61 * 0.99


@pytest.mark.parametrize("model", sorted(shipped_models()))
def test_every_model_that_comes_with_kvbench_can_be_computed(model: str) -> None:
    times = ComputeTime(config_of(model, gpus=16))
    assert 0 < times.prefill_ns(4000, 0) < times.prefill_ns(4000, 4000) < times.prefill_ns(8000, 0)
    assert 0 < times.decode_ns(1000, 100, 1) <= times.decode_ns(1000, 100, 8) <= times.decode_ns(9000, 100, 8)


@pytest.mark.parametrize("gpu", sorted(shipped_gpus()))
def test_every_gpu_names_its_source(gpu: str) -> None:
    assert "data sheet" in shipped_gpus()[gpu].source


def test_gpus_and_shares_that_are_given_count() -> None:
    one, two = (ComputeTime(config_of(gpus=gpus)).prefill_ns(5000, 0) for gpus in (1, 2))
    assert one == pytest.approx(2 * two)
    assert ComputeTime(config_of(flops_share=0.25)).prefill_ns(5000, 0) == pytest.approx(2 * one)


def test_a_model_of_ones_own_says_what_the_table_cannot() -> None:
    geometry = {"layers": 2, "kv_heads": 1, "head_dim": 64}
    with pytest.raises(KvbenchError, match=r"compute\.parameters_billion: the table of models does not say it"):
        config_of(geometry)
    with pytest.raises(KvbenchError, match=r"compute\.attention_heads"):
        config_of(geometry, parameters_billion=1)
    assert ComputeTime(config_of(geometry, parameters_billion=1, attention_heads=4)).prefill_ns(10, 0) > 0


def test_a_model_that_does_not_fit_the_gpus_is_refused() -> None:
    with pytest.raises(KvbenchError, match=r"compute\.gpus: 671 GB of weights need 9 or more h100-sxm of 80 GB"):
        config_of("deepseek-v3", gpus=8)


def test_without_compute_there_is_no_time_of_it() -> None:
    plain = parse_config({"workload": {"kind": "trace", "path": "x"}, "pacing": {"mode": "open"}}, "test")
    assert plain.filled_compute is None
    with pytest.raises(KvbenchError, match="compute: it is none"):
        ComputeTime(plain)
    none = parse_config(plain.model_dump(mode="json") | {"compute": "none"}, "test")
    assert none == plain
    assert none.fingerprint(1) == plain.fingerprint(1)
