"""The tidy table of scores: reading, validation, and gains paired by seed and cell.

The table is the contract between the workflow and the analysis: `COLUMNS` exactly, for a trained cell one row per
metric and milestone (`images_seen`). The row with the most images seen is the cell's end.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.provenance import check
from lowdata_cpt.methods.registry import by_name, untrained
from lowdata_cpt.probes import registry

COLUMNS = (
    "study",
    "backbone",
    "domain",
    "method",
    "n",
    "seed",
    "task",
    "metric",
    "split",
    "value",
    "images_seen",
    "train_seconds",
)
CELL = COLUMNS[:6]
KEY = (*COLUMNS[:9], "images_seen")
# Milestones are whole batches: two methods' are the same where they differ by less than this share.
SAME_IMAGES = 0.02
TEXT = ("study", "backbone", "domain", "method", "task", "metric", "split", "rule", "setting", "place")
WHOLE = ("n", "seed", "images_seen")
REAL = ("value", "train_seconds")
STEP_COLUMNS = (*COLUMNS[1:6], "step", "images_seen")
COST_COLUMNS = (*COLUMNS[1:6], "images_seen", "train_seconds", "trainable_parameters")
SELECTED_COLUMNS = (*COLUMNS[1:6], "task", "setting", "chosen", "place")
GEOMETRY_COLUMNS = (*COLUMNS[1:5], "images", "width", "uniformity", "effective_rank")
LEDGER_COLUMNS = (
    *("rule", "method", "starts", "requeued", "failed", "cancelled", "cpu_hours", "gpu_hours"),
    *("requeued_gpu_hours", "failed_gpu_hours", "cancelled_gpu_hours"),
)
REFERENCE = ("reference", "reference_value", "reference_n", "reference_images_seen")
SPLITS = ("val", "test")
UNTRAINED = untrained()


METRICS = registry.METRICS
SIGN_OF = {name: 1.0 if metric.higher else -1.0 for name, metric in METRICS.items()}  # times a value: higher is better
DRAWN = [name for name, metric in METRICS.items() if metric.drawn]
# One metric a probe carries the figures and the family of tests; the others stay in the tables.
HEADLINE = ("knn_accuracy", "linear_accuracy", "miou", "rmse")
# DIET-CP's own evaluation: kNN with the labels of the n images alone.
OWN_BANK = "bank_knn_accuracy"


def read_scores(path: str | Path) -> pd.DataFrame:
    """Read and validate the tidy table.

    Returns:
        The table with `COLUMNS`, sorted by `KEY`; n, seed and images_seen are integers.

    Raises:
        UserError: the file is missing or empty, its columns are not exactly `COLUMNS`, a number is not
            finite, a task, metric or split is unknown, a fraction leaves [0, 1], a key occurs twice, or
            n and images_seen contradict the method.
    """
    path = Path(path)
    frame = _read_csv(path)
    if list(frame.columns) != list(COLUMNS):
        missing = [name for name in COLUMNS if name not in frame.columns]
        extra = [name for name in frame.columns if name not in COLUMNS]
        what = f"missing {', '.join(missing)}" if missing else f"unexpected {', '.join(extra)}"
        if not missing and not extra:
            what = "wrong order"
        raise UserError(f"{path}: columns must be exactly {','.join(COLUMNS)} ({what})")
    if frame.empty:
        raise UserError(f"{path}: the table has no rows, expected one per metric and milestone")
    _convert(path, frame)
    _check(path, frame)
    return frame.sort_values(list(KEY), kind="stable").reset_index(drop=True)


def read_table(path: str | Path, columns: tuple[str, ...], text: tuple[str, ...] = TEXT) -> pd.DataFrame:
    """Read a companion table (`cost.csv`, `selected.csv`, `ledger.csv`) that must have `columns`.

    Those of `columns` that are not of `text` become numbers.

    Raises:
        UserError: the file or one of the columns is missing, or a number is none.
    """
    path = Path(path)
    frame = _read_csv(path)
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise UserError(f"{path}: missing column {', '.join(missing)}, expected {','.join(columns)}")
    for name in columns:
        if name not in text:
            frame[name] = _numbers(path, name, frame[name])
    return frame


def read_curves(path: str | Path) -> pd.DataFrame:
    """Read `curves.csv`: a row per step, a column per part that any method logs, empty where a run has none.

    Returns:
        One row a (run, step, part) with `STEP_COLUMNS, part, value`; values that are not finite are kept.

    Raises:
        UserError: as `read_table`.
    """
    path = Path(path)
    frame = read_table(path, STEP_COLUMNS)
    steps = frame[list(STEP_COLUMNS)]
    # Not `melt`: V-pretraining logs a part that is named `value`.
    parts = [pd.DataFrame(columns=[*STEP_COLUMNS, "part", "value"])]
    for part in frame.columns[~frame.columns.isin(STEP_COLUMNS)]:
        logged = frame[part] != ""
        parts.append(steps[logged].assign(part=part, value=_numbers(path, part, frame[part])))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def _numbers(path: Path, name: str, text: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(text, errors="coerce")
    wrong = numbers.isna() & ~text.str.lower().isin(["nan", ""])
    if wrong.any():
        line = int(np.flatnonzero(wrong)[0])
        raise UserError(f"{path}, line {line + 2}: {name} is not a number ({text.iloc[line]!r})")
    return numbers


def read_text(path: Path) -> pd.DataFrame:
    """Read any CSV table as text, held to no record.

    Raises:
        UserError: it is missing, or no table.
    """
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file, expected a CSV table") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a CSV table ({str(error).strip()})") from None


def _read_csv(path: Path) -> pd.DataFrame:
    return read_text(check(path) if path.exists() else path)


def _fail(path: Path, wrong: pd.Series, what: str) -> None:
    if wrong.any():
        raise UserError(f"{path}, line {int(np.flatnonzero(wrong)[0]) + 2}: {what}")


def _convert(path: Path, frame: pd.DataFrame) -> None:
    for name in (*WHOLE, *REAL):
        numbers = pd.to_numeric(frame[name], errors="coerce").astype(float)
        _fail(path, ~numbers.map(math.isfinite), f"{name} must be a finite number")
        if name in WHOLE:
            _fail(path, (numbers % 1 != 0) | (numbers < 0), f"{name} must be a whole number ≥ 0")
            frame[name] = numbers.astype(int)
        else:
            frame[name] = numbers


def _check(path: Path, frame: pd.DataFrame) -> None:
    for name in ("study", "backbone", "domain", "method"):
        _fail(path, frame[name] == "", f"{name} is empty")
    _fail(path, ~frame["metric"].isin(list(METRICS)), f"unknown metric, expected one of {', '.join(METRICS)}")
    tasks = frame["metric"].map({name: metric.task for name, metric in METRICS.items()})
    _fail(
        path,
        frame["task"] != tasks,
        "task does not report this metric (knn_*, bank_knn_* and linear_* belong to linear)",
    )
    _fail(path, ~frame["split"].isin(list(SPLITS)), "split must be val or test")
    bounded = frame["metric"].isin([name for name, metric in METRICS.items() if metric.bounded])
    _fail(path, bounded & ~frame["value"].between(0, 1), "this metric is a fraction and must lie in [0, 1]")
    _fail(path, ~bounded & (frame["value"] < 0), "an error metric must be ≥ 0")
    _fail(path, frame["train_seconds"] < 0, "train_seconds must be ≥ 0")
    untrained = frame["method"].isin(list(UNTRAINED))
    _fail(path, untrained & ((frame["n"] > 0) | (frame["images_seen"] > 0)), "an untrained row must have n = 0")
    _fail(path, ~untrained & (frame["n"] == 0), "a trained method must have n > 0")
    repeated = frame.duplicated(list(KEY))
    if repeated.any():
        row = frame.loc[repeated, list(KEY)].iloc[0]
        _fail(path, repeated, f"duplicate key {'/'.join(str(part) for part in row)}")


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dictionaries by column name."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def label_in_text(metric: str) -> str:
    """Return a metric's label as it stands inside a sentence."""
    label = METRICS[metric].label
    return label if label.startswith("kNN") else label[0].lower() + label[1:]


def held_out(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the test split: the only ones that figures and claims report."""
    return scores[scores["split"] == "test"].reset_index(drop=True)


def at_end(scores: pd.DataFrame) -> pd.DataFrame:
    """Return each cell's last milestone: the rows that compare methods."""
    last = scores.groupby([name for name in CELL if name in scores])["images_seen"].transform("max")
    return scores[scores["images_seen"] == last].reset_index(drop=True)


def _as_partner(rows: pd.DataFrame, cell: list[str]) -> pd.DataFrame:
    """Return the columns `cell` of rows, and what `paired_gain` says of a reference."""
    said = {name: rows[old] for name, old in zip(REFERENCE, ("method", "value", "n", "images_seen"), strict=True)}
    return rows[cell].assign(**said)


def paired_gain(
    scores: pd.DataFrame, reference: str, *, complete: bool = False, milestones: bool = False
) -> pd.DataFrame:
    """Pair every trained cell with the reference's of the same seed.

    An untrained reference (n = 0) serves every n, and each cell's end is compared with it. A trained one is matched at
    the same n and equal images seen: at the largest milestone that both cells have. Metrics that need the drawn images
    have no value in an untrained row: where the reference is the method's own step zero, its run's milestone 0 is it.

    Args:
        scores: rows of the tidy table.
        reference: the method to compare with.
        complete: raise when a trained cell has no partner, rather than leave it out; metrics that need the drawn
            images have none in an untrained reference and are left out.
        milestones: return every milestone that has a partner, not the last only.

    Returns:
        The trained rows that have a partner, with `REFERENCE`, `gain` (the metric's unit, positive = better) and
        `shown_gain` (points, or % for RMSE and AbsRel).

    Raises:
        UserError: `complete` and a partner is missing.
    """
    flat = reference in UNTRAINED
    cell = ["backbone", "domain", "seed", "task", "metric", "split", *([] if flat else ["n"])]
    partner = _as_partner(scores[scores["method"] == reference], cell)
    rows = scores[(scores["method"] != reference) & (scores["n"] > 0)]
    goes_on = rows.groupby([name for name in CELL if name in rows])["images_seen"].transform("max") > 0
    rows = rows[(rows["images_seen"] > 0) | ~goes_on]
    drawn = rows["metric"].isin(DRAWN) & flat
    paired = rows[~drawn].merge(partner, on=cell, how="left")
    lonely = paired[paired["reference_value"].isna()]
    if complete and len(lonely):
        row = lonely.iloc[0]
        raise UserError(
            f"scores: {row['method']} on {row['domain']}, {row['metric']}, seed {row['seed']} has no "
            f"{reference} row of the same backbone and seed to be paired with"
        )
    if drawn.any():
        own = [name for name, method in by_name().items() if method.facts.step_zero == reference]
        starts = scores[scores["method"].isin(own) & (scores["n"] > 0) & (scores["images_seen"] == 0)]
        run = [*cell, "n", "method"]
        paired = pd.concat([paired, rows[drawn].merge(_as_partner(starts, run), on=run)], ignore_index=True)
    equal = (paired["images_seen"] - paired["reference_images_seen"]).abs() <= SAME_IMAGES * paired["images_seen"]
    paired = paired[paired["reference_value"].notna() & (equal | flat)]
    # Whole numbers again: a row without a partner made them fractions, and they name the outcomes of images.
    paired = paired.astype({"reference_n": int, "reference_images_seen": int})
    if not milestones:
        whole = [*cell, "method", "n"] if flat else [*cell, "method"]
        paired = paired[paired["images_seen"] == paired.groupby(whole)["images_seen"].transform("max")]
    paired = paired.reset_index(drop=True)
    relative = paired["metric"].map({name: metric.relative for name, metric in METRICS.items()}).astype(bool)
    paired["gain"] = paired["metric"].map(SIGN_OF).astype(float) * (paired["value"] - paired["reference_value"])
    divisor = np.where(relative, paired["reference_value"].replace(0.0, np.nan), 1.0)
    paired["shown_gain"] = 100.0 * paired["gain"] / divisor
    return paired
