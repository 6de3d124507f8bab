"""Outputs that stay as they are when only what was measured differs: equal results leave a clean checkout.

Snakemake deletes a job's outputs before the job runs, so a rule whose output is to stay marks it with `update(...)`.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import pandas as pd

from lowdata_cpt.core.io import write_text

MEASURED = ("train_seconds",)
"""Columns of the study's tables that are measurements: they differ between two equal runs."""


def _parsed(text: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split a table into its results, as text, and which of its measurements are numbers."""
    table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    seconds = table[[name for name in table.columns if name in MEASURED]]
    return table.drop(columns=seconds.columns), seconds.apply(pd.to_numeric, errors="coerce").notna()


def is_same_table(old: str, new: str) -> bool:
    """Whether two CSV texts are equal but for the values of measured columns; a damaged one is equal to nothing."""
    try:
        first, second = _parsed(old), _parsed(new)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError):
        return False
    return all(one.equals(other) for one, other in zip(first, second, strict=True))


def write_table(target: str | Path, frame: pd.DataFrame) -> bool:
    """Write a table as CSV, unless the file there has the same results: then it stays, and only its time is new.

    Floats are written with repr precision, so equal tables give equal bytes.

    Returns:
        Whether the file was written.
    """
    target = Path(target)
    text = frame.to_csv(index=False, lineterminator="\n")
    try:
        old = target.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        old = ""
    if old and is_same_table(old, text):
        os.utime(target)
        return False
    write_text(target, text)
    return True
