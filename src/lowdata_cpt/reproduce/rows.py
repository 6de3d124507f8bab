"""The rows of `make verify`, and how a committed file is compared with the one that was made again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from lowdata_cpt.core.io import read_json, sha256_file
from lowdata_cpt.jobs.collect import differences

# Tables are written with six digits: one unit of the last may differ between versions of numpy.
DIGITS = 1e-5
SHOWN = 10
"""Rows for single files in one check at most."""


class Row(NamedTuple):
    """One line of the table: what was checked, what came out."""

    check: str
    subject: str
    verdict: Literal["held", "failed", "not here"]
    detail: str


def limited(rows: list[Row]) -> list[Row]:
    """Cut a long list of failures, saying how many were left out."""
    if len(rows) <= SHOWN:
        return rows
    left = len(rows) - SHOWN
    return [*rows[:SHOWN], Row(rows[0].check, f"and {left} more", rows[SHOWN].verdict, rows[SHOWN].detail)]


def not_here(check: str, missing: list[Path], what: str) -> list[Row]:
    """Return one row for all files that are not here, if there are any."""
    if not missing:
        return []
    names = sorted(map(str, missing))
    return [Row(check, names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else ""), "not here", what)]


def is_close(first: Any, second: Any) -> bool:
    """Whether two JSON values are equal, numbers to six digits."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(is_close(value, second[key]) for key, value in first.items())
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(is_close, first, second))
    # A column of whole numbers is read as such, also where the other table has fractions in it.
    if isinstance(first, float | int) and isinstance(second, float | int):
        return math.isclose(first, second, rel_tol=DIGITS, abs_tol=1e-12) or (math.isnan(first) and math.isnan(second))
    return bool(first == second)


def compare(check: str, committed: Path, again: Path) -> Row:
    """Compare a committed file with the one made again: by sha256, and tables to six digits."""
    if not committed.exists():
        return Row(check, str(committed), "failed", "missing; run `git checkout` on it")
    if not again.exists():
        return Row(check, str(committed), "not here", "could not be made again: its input is not here")
    checksum = sha256_file(again)
    if sha256_file(committed) == checksum:
        return Row(check, str(committed), "held", f"made again, sha256 {checksum[:12]}")
    if committed.suffix == ".csv":
        # An empty field is NaN: as text it would make its whole column text, which is compared to the last digit.
        options: dict[str, Any] = {"keep_default_na": False, "na_values": [""]}
        tables = [pd.read_csv(path, **options).to_dict("list") for path in (committed, again)]
    elif committed.suffix == ".json":
        tables = [read_json(path) for path in (committed, again)]
    else:
        return Row(check, str(committed), "failed", "made again, it is another file")
    if list(tables[0]) == list(tables[1]) and is_close(*tables):
        return Row(check, str(committed), "held", "made again, equal to six digits")
    return Row(check, str(committed), "failed", "made again, its values are others")


def compare_scores(committed: Path, again: Path) -> Row:
    """Compare a table of scores with the one collected again: equal but for measured seconds."""
    if found := differences(committed, again):
        return Row("scores", str(committed), "failed", found)
    return Row("scores", str(committed), "held", f"collected again, {len(pd.read_csv(committed))} rows equal")


def print_table(rows: list[Row]) -> bool:
    """Print the table and the three counts; return whether nothing failed."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("check", "what", "verdict", "detail"):
        table.add_column(column, overflow="fold")
    colours = {"held": "green", "failed": "red", "not here": "yellow"}
    for row in rows:
        verdict = f"[{colours[row.verdict]}]{row.verdict}[/]"
        table.add_row(row.check, escape(row.subject), verdict, escape(row.detail))
    console = Console(width=None if Console().is_terminal else 160, markup=True, highlight=False)
    console.print(table)
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in colours}
    console.print("\n" + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    if counts["not here"]:
        console.print("what is not here: `make pull` gets it from the DVC remote, `make reproduce` makes it (STUDY=…)")
    return not counts["failed"]
