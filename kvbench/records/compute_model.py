"""How long a GPU computes, as a run file says it: modelled from a model's size and the GPU's peaks, never measured.

Prefill of n tokens behind p that were found: 2 x (active parameters) x n floating-point operations for the weights
(Kaplan et al., Scaling laws for neural language models, 2020, section 2.1), and for attention 2 x layers x (query
heads) x (dimensions of a query + of a value) for each pair of a new token and one that it sees, itself included: n x p
+ n x (n + 1) / 2 pairs. Decode: a step of a batch reads all weights that it uses and the KV cache of its requests, and
gives each of them one token. Either takes the longer of its operations at the share of the GPU's peak that is reached,
and its bytes at the share of the memory's bandwidth (the roofline: Williams et al., CACM 52, 2009).
"""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = int | float | npt.NDArray[Any]


@dataclass(frozen=True)
class ComputeModel:
    """The numbers of one configuration: shares that are reached are in the two rates."""

    gpu: str
    gpus: int
    """That serve the requests of a rank together."""
    flops_per_s: float
    """Of all of them."""
    bytes_per_s: float
    """Of the memories of all of them."""
    weight_flops: float
    """Floating-point operations of the weights, for each token."""
    pair_flops: float
    """Of attention, for each pair of tokens."""
    weight_bytes: float
    """Of all weights."""
    active_bytes: float
    """Of those that one token uses."""
    kv_bytes: float
    """Of keys and values, of each token."""

    def prefill_s(self, new_tokens: Numbers, found_tokens: Numbers) -> npt.NDArray[np.float64]:
        """Of prompts of which `found_tokens` need not be computed (numbers, or arrays of one shape); 0 where nothing is
        new."""
        new, found = np.asarray(new_tokens, np.float64), np.asarray(found_tokens, np.float64)
        pairs = new * found + new * (new + 1) / 2
        flops = self.weight_flops * new + self.pair_flops * pairs
        nbytes = self._weights_read(new) + self.kv_bytes * (found + new)
        return np.where(new > 0, np.maximum(flops / self.flops_per_s, nbytes / self.bytes_per_s), 0.0)

    def decode_s(self, context_tokens: Numbers, output_tokens: Numbers, batch: Numbers) -> npt.NDArray[np.float64]:
        """Of all tokens of an answer but the first, which prefill gives, in a batch of so many requests like it."""
        output, many = np.asarray(output_tokens, np.float64), np.asarray(batch, np.float64)
        steps = np.maximum(0.0, output - 1)
        seen = np.asarray(context_tokens, np.float64) + output / 2
        flops = many * (self.weight_flops + self.pair_flops * seen)
        nbytes = self._weights_read(many) + many * self.kv_bytes * seen
        return steps * np.maximum(flops / self.flops_per_s, nbytes / self.bytes_per_s)

    def _weights_read(self, tokens: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Bytes of weights that a step of so many tokens reads; of a mixture of experts those that any of them uses."""
        return np.minimum(self.weight_bytes, self.active_bytes * tokens)

    def to_json(self) -> str:
        """As the attribute `compute_model_json` of a run file."""
        return json.dumps(asdict(self), sort_keys=True)


def compute_model_of(text: object) -> ComputeModel | None:
    """What `to_json` gave; None where it is no such text, or not all of it is there as a number above 0."""
    try:
        facts = json.loads(str(text))
        model = ComputeModel(**{field.name: facts[field.name] for field in fields(ComputeModel)})
    except (ValueError, TypeError, KeyError):
        return None
    numbers = [value for name, value in asdict(model).items() if name != "gpu"]
    good = all(isinstance(value, int | float) and 0 < value < float("inf") for value in numbers)
    return model if good and isinstance(model.gpu, str) else None
