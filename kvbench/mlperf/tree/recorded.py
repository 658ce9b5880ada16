"""What a run says about itself, by one set of names, whichever tool wrote it.

kvbench records a sequence in kvbench_sequence.json; the reference tool records the arguments of its command in a
metadata file, without the values of each option. What is not recorded is MISSING, and never guessed.
"""

from dataclasses import dataclass
from typing import Any, Final

from kvbench.mlperf.tree.parts import Run
from kvbench.mlperf.tree.untrusted import MISSING, dig, items, whole

_ARGUMENTS: Final = {
    "seed": ("seed",),
    "trials": ("trials",),
    "delay_between_options_s": ("inter_option_delay",),
    "config_file": ("config", "config_file"),
    "autoscaling": ("enable_autoscaling",),
    "cache_directory": ("cache_dir",),
    "results_directory": ("results_dir",),
    "hosts": ("hosts",),
    "npernode": ("npernode",),
    "total_ranks": ("num_processes",),
    "system": ("systemname", "system_name"),
}
"""Our name: the reference tool's, which stand in its metadata at the top, below `args` or below `parameters`."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What `run` records."""

    run: Run

    def __getitem__(self, name: str) -> Any:
        """A value of the whole sequence; MISSING where nobody wrote it down."""
        if self.run.sequence.readable:
            return dig(self.run.sequence.content, name)
        for theirs in _ARGUMENTS.get(name, ()):
            for above in (("args",), ("parameters",), ()):
                value = dig(self.run.metadata.content, *above, theirs)
                if value is not MISSING:
                    return value
        return MISSING

    @property
    def ours(self) -> bool:
        """Whether kvbench made the run, as far as it says so."""
        return self.run.sequence.readable

    @property
    def rehearsal(self) -> bool:
        """Whether the run says that it is a rehearsal; anything but a plain `false` counts as one."""
        return self.ours and self["rehearsal"] is not False

    @property
    def absence(self) -> str:
        """Why a value is not recorded, in words: `not recorded (kvbench_sequence.json: no valid JSON in line 3)`."""
        sequence = self.run.sequence
        if sequence.problem == "no such file":
            return "not recorded"
        return f"not recorded ({sequence.path.name}: {sequence.problem or 'it does not say'})"

    def options(self) -> dict[int, Any]:
        """What the sequence says of each option, by its number."""
        found: dict[int, Any] = {}
        for option in items(self["options"]):
            option_number = whole(dig(option, "option"))
            if option_number is not None:
                found.setdefault(option_number, option)
        return found

    def trials(self, option: int) -> dict[int, Any]:
        """What the sequence says of each trial of `option`, by its number."""
        found: dict[int, Any] = {}
        for trial in items(dig(self.options().get(option), "trials")):
            trial_number = whole(dig(trial, "trial"))
            if trial_number is not None:
                found.setdefault(trial_number, trial)
        return found
