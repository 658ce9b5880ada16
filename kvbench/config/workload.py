"""The sections of a configuration that say what users ask for, one for each kind of workload, with every default."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kvbench.config.types import Count, Factor, FilePath, Number, TraceFormat

Mode = Literal["prefill-decode", "prefill", "decode"]


class Section(BaseModel):
    """Unknown keys are errors, and nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class _Workload(Section):
    mode: Mode = "prefill-decode"
    """`decode` writes its entries before the clock starts."""
    generation_ms_per_token: Factor = Field(default=0.0, ge=0)
    """Simulated time to generate a token; 0 for none."""
    prefill_only_tokens: Count = Field(default=10_000, ge=1)
    """Contexts of this many tokens and more are prefill only (in mode `prefill-decode`)."""
    decode_interval_tokens: Count = Field(default=32, ge=1)
    """Decode reads the context once, then once per this many generated tokens."""


class PersonaWorkload(_Workload):
    """Simulated users with think times and multi-turn conversations."""

    kind: Literal["personas"] = "personas"
    users: Count = Field(default=20, ge=1)
    """Users per rank."""
    mix: dict[Literal["chatbot", "coding", "document"], Number] = {"chatbot": 1.0, "coding": 1.0, "document": 1.0}
    """Relative numbers of users of each persona."""
    think_time_scale: Factor = Field(default=1.0, ge=0)
    """Factor on the personas' think times; 0 for none."""
    end_probability: Number = Field(default=0.2, ge=0, le=1)
    """Probability that a conversation ends after a turn."""
    max_turns: Count = Field(default=50, ge=1)
    entries_per_user: Count = Field(default=4, ge=1)
    """Mode `decode`: different entries that each user reads, written before the clock starts."""

    @model_validator(mode="after")
    def _some_persona_has_users(self) -> Self:
        if not self.mix or min(self.mix.values()) < 0 or sum(self.mix.values()) <= 0:
            raise ValueError("workload.mix: it needs at least one persona with a weight above 0, and none below 0")
        return self


class ReferenceWorkload(_Workload):
    """The users of the reference tool (mlcommons/storage `kv_cache_benchmark`), with its rules for what they read."""

    kind: Literal["reference"]
    users: Count = Field(default=20, ge=1)
    """Users per rank, each of a persona drawn at random."""
    end_probability: Number = Field(default=0.2, ge=0, le=1)
    """Probability that a conversation ends before the next request."""
    max_turns: Count = Field(default=50, ge=1)
    system_prompt_probability: Number = Field(default=0.2, ge=0, le=1)
    """Share of requests that begin with one of three system prompts, which is looked up and never found."""

    @model_validator(mode="after")
    def _does_both_phases(self) -> Self:
        if self.mode != "prefill-decode":
            raise ValueError("workload.mode: the reference workload is prefill-decode")
        return self


class TraceWorkload(_Workload):
    """A recorded trace, dealt to the ranks, each request once."""

    kind: Literal["trace"]
    path: FilePath = Field(description="the trace file")
    """A relative path in a configuration file starts at that file's directory."""
    format: TraceFormat = "auto"
    deal: Literal["round-robin", "prefix", "session"] = "round-robin"
    """`prefix` gives all requests with the same first block to the same rank, `session` all of the same session."""
    max_requests: Count | None = Field(default=None, ge=1)
    """Only the first so many requests of the trace."""
    replay_cycles: Count = Field(default=1, ge=1, le=1000)
    """How often the trace is replayed, one time after the other."""
    serving: Literal["engine", "reference"] = "engine"
    """What a request asks of the cache. `engine`: what a serving engine does; the context is a chain of blocks, which
    is found up to the first that is missing and read once, and the others are written. `reference`: what the MLPerf
    reference does; every block is looked up by itself, and decoding reads the context again and again."""
    skip_bad_lines: bool = False
    """Count malformed lines instead of stopping at the first."""
