"""The table that a study keeps of its runs, as a CSV file."""

import os

import pandas as pd

from kvbench.records.reader import KvbenchError


def read_study_table(path: str | os.PathLike[str], study: str) -> pd.DataFrame:
    """What is in it, whatever that is; `study` names the study in messages. Raises KvbenchError."""
    try:
        return pd.read_csv(path)
    except OSError as error:
        raise KvbenchError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, UnicodeError) as error:
        raise KvbenchError(f"{path} is not the table of {study}: {error}") from error
