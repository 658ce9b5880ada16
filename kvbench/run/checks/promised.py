"""Whether what a configuration promises of its requests can be read, and whether its runs can tell."""

from collections.abc import Iterable

from kvbench.config.run_config import RunConfig
from kvbench.errors import KvbenchError
from kvbench.records.objectives import MODELLED, Objective, parse_objective
from kvbench.workload.request import QOS_CLASSES


def check_objectives(config: RunConfig, source: str) -> tuple[Objective, ...]:
    """Those of the configuration that `source` is. Raises KvbenchError, which names the one that is wrong."""
    return read_objectives(config.objectives, config, f"{source}: objectives")


def read_objectives(texts: Iterable[str], config: RunConfig, where: str) -> tuple[Objective, ...]:
    """Objectives for runs of a configuration. Raises KvbenchError, which begins with `where`: one that cannot be read,
    or whose figure such runs do not have."""
    result = []
    for text in texts:
        try:
            objective = parse_objective(text, QOS_CLASSES)
        except ValueError as error:
            raise KvbenchError(f"{where}: {error}") from error
        if objective.figure in MODELLED and config.compute is None:
            raise KvbenchError(
                f"{where}: {text}: {objective.figure} has a modelled part, and the configuration has no compute: set "
                "compute.gpu (configs/gpus.yaml), or bound load, storage or latency"
            )
        result.append(objective)
    return tuple(result)
