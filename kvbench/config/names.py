"""Names that a configuration may hold and that a table on a higher floor gives their meaning: the table offers them.

So a new policy is known to the configuration, and to its messages, by its one line in the table of policies.
"""

from typing import Final

from pydantic_core import PydanticCustomError


class Names:
    """The names that one key takes, in the order in which they were offered."""

    def __init__(self, default: str) -> None:
        """`default` is the configuration's own, and known whether or not its table was loaded."""
        self._known = [default]

    def offer(self, name: str) -> None:
        """Take `name` from now on."""
        if name not in self._known:
            self._known.append(name)

    def check(self, value: object) -> str:
        """`value`, where it is one of the names. Raises what pydantic raises for a value that is none of several."""
        if isinstance(value, str) and value in self._known:
            return value
        raise PydanticCustomError(
            "literal_error", "Input should be {expected}", {"expected": " or ".join(map(repr, self._known))}
        )


POLICY_NAMES: Final = Names("waterfall-lru")
"""Of `cache.policy`: `kvbench.cache.policies` offers them."""
