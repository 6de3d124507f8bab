"""Gains with their intervals: paired by seed and cell, and by test image where the outcomes of the images were kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lowdata_cpt.analysis import stats
from lowdata_cpt.analysis.outcomes import Outcomes
from lowdata_cpt.analysis.table import METRICS, paired_gain, records

Array = NDArray[np.float64]
CELL = ["backbone", "domain", "method", "n", "task", "metric"]
MEASURED = ["mean", "ci_low", "ci_high", "interval_covers", "mde", "p", "p_sign_flip"]
PLACE = ["backbone", "domain"]


@dataclass(frozen=True)
class Measured:
    """A gain in the shown unit (points, or % for RMSE and AbsRel) with what says how sure it is.

    Attributes:
        interval: estimate and 95 % interval.
        p_sign_flip: exact two-sided sign-flip test over seeds; NaN for one seed.
        clusters: number of (domain, seed) behind it.
    """

    interval: stats.Interval
    p_sign_flip: float
    clusters: int

    @property
    def mde(self) -> float:
        """Smallest true gain that such a study finds with 80 % power at .05, two-sided."""
        return stats.minimum_detectable_effect(self.interval.standard_error, self.interval.degrees_of_freedom)

    def row(self) -> dict[str, Any]:
        """Return the columns `MEASURED` of a table."""
        found = self.interval
        values = (found.estimate, found.low, found.high, found.covers, self.mde, found.p_value, self.p_sign_flip)
        return dict(zip(MEASURED, values, strict=True))


def gains(scores: pd.DataFrame, reference: str, outcomes: Outcomes | None = None, **options: bool) -> pd.DataFrame:
    """Return `paired_gain` with columns `replicates` and `test_images`.

    `replicates` is the shown gain on every bootstrap sample of the test images, an array [DRAWS], or None where either
    side has no outcomes; `test_images` counts what was drawn for them. Options as in `paired_gain`.
    """
    return with_replicates(paired_gain(scores, reference, **options), outcomes)


def with_replicates(paired: pd.DataFrame, outcomes: Outcomes | None, **stored: Any) -> pd.DataFrame:
    """Add the columns of `gains` to rows of `paired_gain`; `stored` are columns under which outcomes lie elsewhere."""
    if outcomes is None:
        return paired.assign(replicates=None, test_images=0)
    rows = [{**row, **stored} for row in records(paired)]
    drawn = pd.Series([gain_replicates(row, outcomes) for row in rows], index=paired.index, dtype=object)
    counts = [outcomes.drawn(row["backbone"], row["domain"], row["metric"]) for row in rows]
    return paired.assign(replicates=drawn, test_images=counts)


def gain_replicates(row: dict[str, Any], outcomes: Outcomes) -> Array | None:
    """Return the shown gain of a row of `paired_gain` on every bootstrap sample of the test images, or None."""
    own, other = outcomes.replicates(row), outcomes.replicates(row, "reference_")
    if own is None or other is None:
        return None
    metric = METRICS[row["metric"]]
    gain = 100.0 * (own - other if metric.higher else other - own)
    return gain / other if metric.relative else gain


def domain_gain(rows: pd.DataFrame) -> Measured:
    """Measure the gain of one method on one domain and metric: sizes averaged within a seed, then seeds.

    Args:
        rows: rows of `gains`.
    """
    by_seed = list(rows.groupby("seed"))
    values = np.array([part["shown_gain"].mean() for _, part in by_seed])
    drawn = None
    if all(isinstance(one, np.ndarray) for one in rows["replicates"]):
        drawn = np.array([np.mean(np.stack(list(part["replicates"])), axis=0) for _, part in by_seed])
    flip = stats.sign_flip_test(values) if len(values) > 1 else math.nan
    return Measured(stats.joint_interval(values, drawn, rows["test_images"].min()), flip, len(values))


def pooled_gain(rows: pd.DataFrame) -> Measured:
    """Measure the mean over domains (and backbones) of `domain_gain`: it holds for these domains only.

    Args:
        rows: rows of `gains` of one method and one metric.
    """
    parts = [domain_gain(part) for _, part in rows.groupby(PLACE)]
    clusters = list(zip(*(rows[name] for name in (*PLACE, "seed")), strict=True))
    count = len(set(clusters))
    flip = stats.sign_flip_test(rows["shown_gain"], clusters) if count > 1 else math.nan
    return Measured(stats.mean_of_intervals([part.interval for part in parts]), flip, count)


def change_with_n(
    rows: pd.DataFrame, first: Sequence[int] | None = None, last: Sequence[int] | None = None
) -> pd.DataFrame:
    """Return, per domain and seed, the gain at a large n minus that at a small n; nothing where there is one n.

    Args:
        rows: rows of `gains` of one method and one metric.
        first: the small sizes, averaged; the domain's smallest without it.
        last: the large sizes; the domain's largest without it.

    Returns:
        The rows of the large n, with `shown_gain` and `replicates` those differences, and the small n's `images_seen`
        as the reference's.
    """
    place = [*PLACE, "seed"]
    sizes = rows.groupby(place)["n"]
    start = rows[rows["n"].isin(list(first))] if first is not None else rows[rows["n"] == sizes.transform("min")]
    end = rows[rows["n"].isin(list(last))] if last is not None else rows[rows["n"] == sizes.transform("max")]
    if start.empty or end.empty:
        return rows.iloc[:0]
    taken = {"n_first": ("n", "max"), "shown_first": ("shown_gain", "mean"), "images_first": ("images_seen", "max")}
    before = start.groupby(place).agg(**taken, drawn_first=("replicates", _mean)).reset_index()
    both = end.merge(before, on=place)
    both = both[both["n"] > both["n_first"]].reset_index(drop=True)
    drawn = [
        late - early if isinstance(late, np.ndarray) and isinstance(early, np.ndarray) else None
        for late, early in zip(both["replicates"], both["drawn_first"], strict=True)
    ]
    return both.assign(
        shown_gain=both["shown_gain"] - both["shown_first"],
        replicates=pd.Series(drawn, index=both.index, dtype=object),
        reference_images_seen=both["images_first"],
    )


def _mean(drawn: pd.Series) -> Array | None:
    whole = [one for one in drawn if isinstance(one, np.ndarray)]
    return np.mean(np.stack(whole), axis=0) if whole and len(whole) == len(drawn) else None
