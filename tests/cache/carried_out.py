"""The steps of a cache's decisions carried out one by one, as the engine would."""

from kvbench.cache import Step
from kvbench.records.schema import Op


class CarriedOut:
    """What lies on each tier; refuses a step that has no room or no object."""

    def __init__(self, capacities: list[int]) -> None:
        self.capacities = capacities
        self.tiers: list[dict[int, int]] = [{} for _ in capacities]

    def apply(self, step: Step) -> None:
        if step.source is not None:
            assert self.tiers[step.source][step.key] == step.nbytes
        if step.target is not None:
            assert step.key not in self.tiers[step.target]
            self.tiers[step.target][step.key] = step.nbytes  # a move holds both copies until it is done
            assert sum(self.tiers[step.target].values()) <= self.capacities[step.target]
        if step.source is not None and step.op != Op.READ:
            del self.tiers[step.source][step.key]

    def contents(self) -> list[tuple[int, int, int]]:
        """(key, tier, bytes), sorted."""
        return sorted((key, tier, nbytes) for tier, held in enumerate(self.tiers) for key, nbytes in held.items())
