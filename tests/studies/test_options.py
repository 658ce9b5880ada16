"""What the user may choose, and the one message that a wrong choice gives."""

from pathlib import Path as FilePath
from typing import Any

import pytest

from kvbench.errors import KvbenchError
from kvbench.records.schema import READ_PATHS, Path
from kvbench.studies.options import CopyPathChoices, read_choices


def choose(**changes: Any) -> CopyPathChoices:
    options: dict[str, Any] = {
        "directories": [FilePath("/a")],
        "ranks": "1",
        "threads": "1",
        "paths": "all",
        "sizes": "1MiB",
        "seconds": "1",
        "repeats": 5,
        "seed": 1,
        "model": "llama3.1-8b",
    }
    return read_choices(**(options | changes))


def test_lists_are_read_once_each_and_in_order() -> None:
    chosen = choose(ranks="4,1, 2,1", threads="16,1", sizes="64MiB,1MiB", paths="numpy,double-copy")
    assert chosen.ranks == (1, 2, 4)
    assert chosen.threads == (1, 16)
    assert chosen.sizes == (2**20, 2**26)
    assert chosen.read_paths == (Path.DOUBLE_COPY, Path.NUMPY)


def test_all_means_every_read_path() -> None:
    assert choose(paths="all").read_paths == READ_PATHS


def test_choices_survive_json() -> None:
    chosen = choose(ranks="1,2", directories=[FilePath("/a"), FilePath("/b")])
    assert CopyPathChoices.from_json(chosen.to_json()) == chosen


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("sizes", "5000", "--size 5000: 5000 is not a multiple of 4 KiB; the nearest is 4096 bytes"),
        ("sizes", "0", "is not a multiple of 4 KiB"),
        ("sizes", "1Mib", "unknown unit of size 'Mib': did you mean MiB?"),
        ("paths", "numpi", "no read path 'numpi': did you mean numpy?"),
        ("paths", "numpy,", "none left empty"),
        ("ranks", "1,0", "--ranks 1,0: expected whole numbers from 1"),
        ("threads", "two", "--threads two: expected whole numbers from 1 to 1024 such as 1,2,4, not 'two'"),
        ("seconds", "0", "expected more than 0 seconds"),
        ("seconds", "1 fortnight", "unknown unit of time"),
        ("repeats", 4, "a confidence interval needs at least 5"),
        ("model", "llama3.1-8", "did you mean llama3.1-8b?"),
    ],
)
def test_a_wrong_choice_is_named_with_what_is_right(option: str, value: object, wanted: str) -> None:
    with pytest.raises(KvbenchError) as error:
        choose(**{option: value})
    assert wanted in str(error.value)
    assert "\n" not in str(error.value)
