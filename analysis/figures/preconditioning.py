"""What was written before the load, and whether the storage was steady then: facts of the file. Judges nothing anew."""

from dataclasses import dataclass

import pandas as pd
from kvbench_analysis.tables.load import Run


@dataclass(frozen=True)
class Preconditioning:
    """Writes before the load, in rounds."""

    asked: str
    """`steady`, or how often the capacity was to be written (`2x`)."""
    steady_round: int
    """The first round whose window of five was steady, from 1; 0: none was."""
    seconds: float
    written_bytes: int
    capacity_bytes: int
    """Of the storage tiers of all ranks."""
    rounds: pd.DataFrame
    """A row for each round, as /precondition, and `gib_per_s`."""

    @property
    def steady(self) -> bool:
        """Whether the last window was."""
        return bool(len(self.rounds) and self.rounds["steady"].iloc[-1])

    @property
    def text(self) -> str:
        """In a sentence."""
        times = self.written_bytes / max(1, self.capacity_bytes)
        number = len(self.rounds)
        rounds = f"{number} round{'' if number == 1 else 's'}"
        state = (
            f"steady state reached after round {self.steady_round}"
            if self.steady_round
            else "too few rounds to tell a steady state (five are needed)"
            if number < _WINDOW
            else "steady state not reached"
        )
        return (
            f"preconditioned ({self.asked}): {times:.3g} times the capacity written in {rounds} and "
            f"{self.seconds:.3g} s, {state}"
        )


_WINDOW = 5


def preconditioning(run: Run) -> Preconditioning | None:
    """None where nothing was written before the load, or the file does not say what (it was recovered)."""
    asked, rounds = str(run.attributes.get("precondition", "")), run.table("precondition")
    if not asked or rounds.empty:
        return None
    rounds = rounds.assign(gib_per_s=rounds["nbytes"] / rounds["wall_ns"] * 1e9 / 2**30)
    facts = {name: run.attributes.get(f"precondition_{name}", 0) for name in ("steady_round", "s", "bytes")}
    return Preconditioning(
        asked=asked,
        steady_round=int(facts["steady_round"]),
        seconds=float(facts["s"]),
        written_bytes=int(facts["bytes"]),
        capacity_bytes=int(run.attributes.get("precondition_capacity_bytes", 0)),
        rounds=rounds,
    )
