"""Outputs that stay as they are when only what was measured differs: equal results leave a clean checkout.

Snakemake deletes a job's outputs before the job runs, so a rule whose output is to stay marks it with `update(...)`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from lowdata_cpt.core.io import identity, write_text

MEASURED = ("train_seconds",)
"""Columns of the study's tables that are measurements: they differ between two equal runs."""
DRAWN_FROM = "Drawn from"
"""The text field of a PNG that says what it was drawn from."""


def _parsed(text: str, measured: Collection[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split a table into its results, as text, and which of its measurements are numbers."""
    table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    seconds = table[[name for name in table.columns if name in measured]]
    return table.drop(columns=seconds.columns), seconds.apply(pd.to_numeric, errors="coerce").notna()


def is_same_table(old: str, new: str, measured: Collection[str] = MEASURED) -> bool:
    """Whether two CSV texts are equal but for the values of measured columns; a damaged one is equal to nothing."""
    try:
        first, second = _parsed(old, measured), _parsed(new, measured)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError):
        return False
    return all(one.equals(other) for one, other in zip(first, second, strict=True))


def write_table(target: str | Path, frame: pd.DataFrame, measured: Collection[str] = MEASURED) -> bool:
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
    if old and is_same_table(old, text, measured):
        os.utime(target)
        return False
    write_text(target, text)
    return True


def drawing_identity(source: str, caption: str, code: str) -> str:
    """Return what a figure is drawn from, as one hash: its source table's text, its caption, the code's version."""
    return identity({"source": source, "caption": caption, "code": code})


def is_drawn(png: str | Path, identity: str) -> bool:
    """Whether a whole PNG was drawn from this already (`metadata={DRAWN_FROM: identity}`); its time is made new then.

    The pixels of equal drawings differ between machines (fonts, rasteriser), so a figure is judged by its source.
    """
    from PIL import Image

    try:
        with Image.open(png) as image:
            found = image.info.get(DRAWN_FROM)
            image.verify()
    except (OSError, SyntaxError, ValueError):
        return False
    if found != identity:
        return False
    os.utime(png)
    return True
