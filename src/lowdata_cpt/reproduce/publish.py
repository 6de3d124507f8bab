"""`make publish`: what git keeps of a finished run beside its tables and figures: one file a kind, not one a job.

A run itself writes only files that git does not hold, or that are byte-equal for equal results. These three tell of one
certain run, and change only when somebody publishes: provenance.json (how each artifact came about), benchmarks.csv
(seconds and memory of each job), subsets.csv (which images).
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from lowdata_cpt.analysis.table import read_text
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import write_text
from lowdata_cpt.core.provenance import write_provenance

PLACE = ("backbone", "domain", "method", "n", "seed")
# What the folders below benchmarks/<rule>/ are, of each rule that is measured.
LAYOUTS: dict[str, tuple[str, ...]] = {
    "data": ("domain",),
    "backbone": ("backbone",),
    "subset": ("domain", "seed", "n"),
    "pretrain": PLACE,
    "evaluate": PLACE,
    "continue": (),
}
BENCHMARKS = "benchmarks.csv"
SUBSETS = "subsets.csv"
HASH_DIGITS = 16
"""Of an image's sha256 so many hexadecimal digits: enough to tell images apart, and a quarter of the size."""


def _job(path: Path) -> dict[str, str]:
    """Return rule, job and cell columns of a benchmark file, given by its path below benchmarks/."""
    rule, *parts = path.with_suffix("").parts
    names = LAYOUTS.get(rule, ())
    values = dict(zip(names, parts, strict=True)) if len(names) == len(parts) else {}
    for name, letter in (("n", "n"), ("seed", "s")):
        if name in values and re.fullmatch(rf"{letter}\d+", values[name]):
            values[name] = values[name][1:]
    return {"rule": rule, "job": "/".join(parts)} | {name: values.get(name, "") for name in PLACE}


def _columns(path: Path, names: list[str]) -> pd.DataFrame:
    """Read a table as text.

    Raises:
        UserError: it is missing or no table, or lacks one of the columns.
    """
    table = read_text(path)
    if missing := [name for name in names if name not in table]:
        raise UserError(f"{path}: missing column {', '.join(missing)}; `git checkout` on it")
    return table


def gather_benchmarks(folder: Path) -> pd.DataFrame:
    """Return Snakemake's measurements of each job: rule, job, the cell's columns, then Snakemake's own (s, max_rss, …).

    Of jobs that did not run here the published rows stay, as long as the workflow has such jobs and what they name has
    scores.

    Raises:
        UserError: a benchmark file is damaged.
    """
    rows = []
    for path in sorted((folder / "benchmarks").rglob("*.tsv")):
        try:
            measured = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False).iloc[-1].to_dict()
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, IndexError):
            raise UserError(f"{path}: not a benchmark of Snakemake; delete it") from None
        rows.append(_job(path.relative_to(folder / "benchmarks")) | {str(key): one for key, one in measured.items()})
    table = pd.DataFrame(rows)
    if (folder / BENCHMARKS).exists():
        old = _columns(folder / BENCHMARKS, ["rule", "job", *PLACE])
        # Of a language study no job has a place in the grid of images, and its scores have other columns.
        named = [name for name in PLACE if (old[name] != "").any()]
        scores = _columns(folder / "scores.csv", named)
        known = {name: {"", *scores[name]} for name in named}
        old = old[old["rule"].isin(LAYOUTS)]
        old = old[[all(row[name] in known[name] for name in named) for _, row in old.iterrows()]]
        table = pd.concat([table, old], ignore_index=True)
    if table.empty:
        return pd.DataFrame(columns=["rule", "job", *PLACE])
    return table.drop_duplicates(["rule", "job"]).sort_values(["rule", "job"], ignore_index=True).fillna("")


def gather_subsets(folder: Path) -> pd.DataFrame:
    """Return which images the cells train on: domain, seed, place, id, sha256 (its first digits).

    Subsets are nested: the one of n images holds those with place ≤ n.

    Raises:
        UserError: a subset's file is damaged, or a smaller one is no beginning of the larger.
    """
    longest: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for path in sorted((folder / "subsets").glob("*/s*/n*.csv"), key=lambda path: -int(path.stem[1:])):
        try:
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
            drawn = list(zip(frame["id"], frame["sha256"].str[:HASH_DIGITS], strict=True))
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, KeyError):
            raise UserError(f"{path}: not a subset manifest, expected the columns row,id,sha256") from None
        key = path.parent.parent.name, int(path.parent.name[1:])
        if drawn != longest.setdefault(key, drawn)[: len(drawn)]:
            raise UserError(f"{path}: not the beginning of the larger subset of its seed; draw both again")
    rows = [(*key, place, *image) for key in sorted(longest) for place, image in enumerate(longest[key], 1)]
    return pd.DataFrame(rows, columns=["domain", "seed", "place", "id", "sha256"])


def publish(study: str) -> list[Path]:
    """Write provenance.json, benchmarks.csv and subsets.csv of a finished run into results/<study>/.

    Where this checkout has no benchmark or subset (a fresh clone that drew figures again), the published file stays.

    Returns:
        The paths of the three that are there.

    Raises:
        UserError: the study has no scores, or a file that is gathered is damaged.
    """
    folder = Path("results", study)
    if not (folder / "scores.csv").exists():
        raise UserError(f"{folder / 'scores.csv'}: no such file; a study is published when it has run")
    written = [write_provenance(folder)]
    for name, table in ((BENCHMARKS, gather_benchmarks(folder)), (SUBSETS, gather_subsets(folder))):
        if len(table):
            write_text(folder / name, table.to_csv(index=False, lineterminator="\n"))
        if (folder / name).exists():
            written.append(folder / name)
    return written
