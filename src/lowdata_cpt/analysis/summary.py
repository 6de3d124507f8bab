"""From the tidy table to the statistics that figures, claims and the report share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from lowdata_cpt.analysis import stats
from lowdata_cpt.analysis.style import BEFORE_OF, CONTROL_OF, is_variant, ordered, parent_of
from lowdata_cpt.analysis.table import HEADLINE, METRICS, UNTRAINED, held_out, paired_gain

CELL = ["backbone", "domain", "method", "n", "task", "metric"]
LIMITS = (
    "Intervals cover the randomness of subsets and of training on these domains, not the choice of domains or of test "
    "images."
)


def seeds_text(scores: pd.DataFrame) -> str:
    """Say how many seeds there are: `3 seeds`, or `1–3 seeds` where cells differ."""
    counts = scores.groupby(["backbone", "domain", "method", "n"])["seed"].nunique()
    low, high = int(counts.min()), int(counts.max())
    return f"{high} seed{'s' if high > 1 else ''}" if low == high else f"{low}–{high} seeds"


def sizes_text(scores: pd.DataFrame) -> str:
    """List the numbers of pretraining images: `n = 100, 250`."""
    return "n = " + ", ".join(str(n) for n in sorted(scores.loc[scores["n"] > 0, "n"].unique()))


def count_cells(scores: pd.DataFrame) -> int:
    """Return the number of cells of the grid in a table: backbone, domain, method, n, seed."""
    return len(scores[["backbone", "domain", "method", "n", "seed"]].drop_duplicates())


def main_rows(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the test rows without the variants."""
    rows = held_out(scores)
    return rows[~rows["method"].map(is_variant)].reset_index(drop=True)


def cell_statistics(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean and sd over seeds of every cell and metric, with the gain over base and its Student interval.

    Returns:
        One row a cell: `mean, sd, seeds, images_seen, train_seconds` (median), then for trained methods `gain` and its
        `ci_low, ci_high, mde` in the metric's unit and `shown_gain, shown_low, shown_high` as figures show
        it. NaN where one seed gives no interval.
    """
    test = held_out(scores)
    names = {"mean": ("value", "mean"), "sd": ("value", "std"), "seeds": ("seed", "nunique")}
    # The median of the seconds: one run beside other work must not make a method look dear.
    names |= {"images_seen": ("images_seen", "mean"), "train_seconds": ("train_seconds", "median")}
    cells = test.groupby(CELL).agg(**names)
    gains = paired_gain(test, "base", complete=True).groupby(CELL)
    for kind, low, high in (("gain", "ci_low", "ci_high"), ("shown_gain", "shown_low", "shown_high")):
        found = gains[kind].agg(["mean", "std", "count"])
        freedom = (found["count"] - 1).where(found["count"] > 1)
        error = found["std"] / found["count"] ** 0.5
        half = error * student.ppf(0.975, freedom)
        cells[kind], cells[low], cells[high] = found["mean"], found["mean"] - half, found["mean"] + half
        if kind == "gain":
            pairs = zip(error, freedom, strict=True)
            cells["mde"] = pd.Series([stats.minimum_detectable_effect(e, f) for e, f in pairs], found.index, float)
    return cells.reset_index()


def strata_of(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Return (backbone, domain) a row: the strata of every pooled statistic."""
    return list(zip(rows["backbone"], rows["domain"], strict=True))


def clusters_of(rows: pd.DataFrame) -> list[tuple[str, str, int]]:
    """Return (backbone, domain, seed) a row: what is redrawn or sign-flipped together."""
    return list(zip(rows["backbone"], rows["domain"], rows["seed"], strict=True))


def pooled_gain(rows: pd.DataFrame) -> dict[str, float | str]:
    """Pool paired gains over domains, sizes and seeds.

    Args:
        rows: rows of `paired_gain` of one method and one metric.

    Returns:
        `iqm, iqm_low, iqm_high` (stratified bootstrap), `mean, ci_low, ci_high, mde` (stratified Student), all
        of the shown gain; `p` (Student, of the mean), `p_sign_flip` (whole clusters), `p_wilcoxon` (cluster
        means); the counts behind them, and `over`, the names of the domains.
    """
    strata, clusters = strata_of(rows), clusters_of(rows)
    robust = stats.bootstrap_interval(rows["shown_gain"], strata, clusters)
    mean = stats.t_interval(rows["shown_gain"], strata, clusters)
    by_cluster = rows.groupby(["backbone", "domain", "seed"])["shown_gain"].mean()
    return {
        "over": " ".join(sorted(rows["domain"].unique())),
        "domains": len(set(strata)),
        "cells": len(rows[["backbone", "domain", "n"]].drop_duplicates()),
        "clusters": len(by_cluster),
        "iqm": robust.estimate,
        "iqm_low": robust.low,
        "iqm_high": robust.high,
        "mean": mean.estimate,
        "ci_low": mean.low,
        "ci_high": mean.high,
        "mde": stats.minimum_detectable_effect(mean.standard_error, mean.degrees_of_freedom),
        "p": mean.p_value,
        "p_sign_flip": stats.sign_flip_test(rows["shown_gain"], clusters) if len(by_cluster) > 1 else math.nan,
        "p_wilcoxon": stats.wilcoxon_test(by_cluster) if len(by_cluster) > 1 else math.nan,
    }


def references_of(method: str) -> dict[str, str]:
    """Return what a method is compared with: family name → reference method."""
    parent = parent_of(method) if is_variant(method) else None
    if parent is not None:
        return {"parent": parent}
    others = {"control": CONTROL_OF.get(method), "before": BEFORE_OF.get(method)}
    return {"base": "base"} | {family: reference for family, reference in others.items() if reference}


def change_with_n(gains: pd.DataFrame) -> pd.DataFrame:
    """Return, per domain and seed, the gain at the largest n minus that at the smallest; nothing where there is one n.

    Args:
        gains: rows of `paired_gain` of one method and one metric.

    Returns:
        The rows of the largest n, with `shown_gain` that difference and the smallest n's `images_seen` as the
        reference's.
    """
    place = ["backbone", "domain", "seed"]
    sizes = gains.groupby(place)["n"]
    first, last = gains[gains["n"] == sizes.transform("min")], gains[gains["n"] == sizes.transform("max")]
    both = last.merge(first[[*place, "n", "shown_gain", "images_seen"]], on=place, suffixes=("", "_first"))
    both = both[both["n"] > both["n_first"]]
    return both.assign(
        shown_gain=both["shown_gain"] - both["shown_gain_first"], reference_images_seen=both["images_seen_first"]
    )


def comparisons(scores: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield what each row of `summary` is about, and the paired gains behind it."""
    test = held_out(scores)
    for method in ordered(test.loc[test["n"] > 0, "method"]):
        for family, reference in (references_of(method) | {"trend": "base"}).items():
            gains = paired_gain(test[test["method"].isin([method, reference])], reference)
            for metric in HEADLINE:
                part = gains[(gains["metric"] == metric) & (gains["method"] == method)]
                part = part[part["shown_gain"].notna()]
                part = change_with_n(part) if family == "trend" else part
                if not part.empty:
                    row = {"family": family, "method": method, "reference": reference, "metric": metric}
                    yield row | {"unit": METRICS[metric].gain_unit}, part


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """Pooled gain of every method over base, its control, its own source's step 0, or (a variant) over its parent.

    The family `trend` holds the gain over base at each domain's largest n minus that at its smallest, paired by seed.
    Holm's correction runs over one family: all methods and headline metrics against the same kind of reference.
    The Student test carries it; the sign-flip test, free of its assumption but with p ≥ 2/2^clusters, stands
    beside it.

    Returns:
        One row a (family, method, reference, metric) with the values of `pooled_gain`, `p_holm` and
        `p_sign_flip_holm`, and `equal_images`, whether both sides saw the same number of images (always
        true against base).
    """
    rows = []
    for row, part in comparisons(scores):
        seen = (part["images_seen"] == part["reference_images_seen"]).all()
        rows.append({**row, **pooled_gain(part), "equal_images": row["family"] in ("base", "before") or bool(seen)})
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    for name in ("p", "p_sign_flip"):
        table[f"{name}_holm"] = np.nan
        for _, group in table.groupby("family"):
            table.loc[group.index, f"{name}_holm"] = stats.holm(group[name])
    return table


def by_domain(scores: pd.DataFrame) -> pd.DataFrame:
    """Return what the rows of `summary` are made of: the same gains on each domain, before any correction.

    Returns:
        One row a (family, method, reference, metric, domain) with `mean, ci_low, ci_high, p` over sizes and seeds.
    """
    rows = []
    for row, part in comparisons(scores):
        for domain, gains in part.groupby("domain"):
            mean = stats.t_interval(gains["shown_gain"], strata_of(gains), clusters_of(gains))
            interval = {"mean": mean.estimate, "ci_low": mean.low, "ci_high": mean.high, "p": mean.p_value}
            rows.append({**row, "domain": str(domain), "sizes": gains["n"].nunique(), **interval})
    return pd.DataFrame(rows)


def on_fewer_domains(table: pd.DataFrame) -> pd.Series:
    """Return whether a row of `summary` pools fewer domains than its metric has: no fair neighbour to the others."""
    domains = table["over"].map(lambda names: len(names.split()))
    return domains < domains.groupby([table["family"], table["metric"]]).transform("max")


def paired_cells(scores: pd.DataFrame, first: str, second: str, metrics: Sequence[str]) -> list[stats.PairedCell]:
    """Collect the cells in which two methods can be compared, oriented so that higher is better.

    An untrained method serves every n at which the other was trained.
    """
    cells = []
    columns = ["backbone", "domain", "metric", "n", "seed", "value"]
    wanted = scores["metric"].isin(list(metrics))
    left = scores.loc[wanted & (scores["method"] == first), columns]
    right = scores.loc[wanted & (scores["method"] == second), columns]
    on = ["backbone", "domain", "metric", "seed"]
    flat = first in UNTRAINED or second in UNTRAINED
    joined = left.merge(right, on=on if flat else [*on, "n"], suffixes=("", "_second"))
    if flat and second not in UNTRAINED:
        joined["n"] = joined["n_second"]
    for (backbone, domain, metric, _), group in joined.groupby(["backbone", "domain", "metric", "n"]):
        sign = 1.0 if METRICS[str(metric)].higher else -1.0
        x, y = sign * group["value"].to_numpy(float), sign * group["value_second"].to_numpy(float)
        cells.append(stats.PairedCell((backbone, domain), tuple(group["seed"].astype(int)), x, y))
    return cells


def improvement(scores: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Probability of improvement of every ordered pair of base, controls and methods.

    Args:
        scores: the tidy table.
        groups: panel name → headline metrics.

    Returns:
        One row a (group, method, over) with `probability, ci_low, ci_high, cells`.
    """
    test = main_rows(scores)
    methods = [name for name in ordered(test["method"]) if name != "random"]
    rows = []
    for group, metrics in groups.items():
        for first, second in combinations(methods, 2):
            cells = paired_cells(test, first, second, metrics)
            if cells:
                found = stats.probability_of_improvement(cells)
                row = {"group": group, "method": first, "over": second, "probability": found.estimate}
                rows.append({**row, "ci_low": found.low, "ci_high": found.high, "cells": len(cells)})
                row = {"group": group, "method": second, "over": first, "probability": 1 - found.estimate}
                rows.append({**row, "ci_low": 1 - found.high, "ci_high": 1 - found.low, "cells": len(cells)})
    names = ["group", "method", "over", "probability", "ci_low", "ci_high", "cells"]
    return pd.DataFrame(rows, columns=names)


def loss_table(curves: pd.DataFrame) -> pd.DataFrame:
    """Return what was logged at the first and the last step (medians over runs), on average, and at the lowest step.

    A constant predictor has a loss too (ln K, ln N, or near 1 for a normalised target): compare the lowest with it.

    Returns:
        One row a (method, part, domain) with `runs, first, last, mean, lowest`.
    """
    run = ["method", "part", "backbone", "domain", "n", "seed"]
    ordered_steps = curves[curves["part"] != "lr"].sort_values([*run, "step"], kind="stable")
    runs = ordered_steps.groupby(run)["value"].agg(["first", "last", "mean", "min"]).reset_index()
    names = {
        "runs": ("first", "size"),
        "first": ("first", "median"),
        "last": ("last", "median"),
        "mean": ("mean", "mean"),
        "lowest": ("min", "min"),
    }
    return runs.groupby(["method", "part", "domain"]).agg(**names).reset_index()


def selection_table(selected: pd.DataFrame) -> pd.DataFrame:
    """Count where in their grids the probes' choices lie: many at an end say that the grid is too short there.

    Returns:
        One row a (domain, task) with `probes, lowest, inner, highest`.
    """
    counts = selected.groupby(["domain", "task"])["place"].value_counts().unstack(fill_value=0)
    counts = counts.reindex(columns=["lowest", "inner", "highest"], fill_value=0)
    counts.insert(0, "probes", counts.sum(axis=1))
    counts.columns.name = None
    return counts.reset_index()


def rank_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Rank stability over the cells (backbone, domain, n, metric) in which every trained method has a score.

    Returns:
        One row a (metric or `all`, method) with `mean_rank, concordance, cells`.
    """
    test = main_rows(scores)
    test = test[(test["n"] > 0) & test["metric"].isin(HEADLINE)].copy()
    sign = test["metric"].map({name: 1.0 if METRICS[name].higher else -1.0 for name in HEADLINE}).astype(float)
    test["oriented"] = sign * test["value"]
    rows = []
    for name in [*HEADLINE, "all"]:
        part = test if name == "all" else test[test["metric"] == name]
        wide = part.pivot_table(
            index=["backbone", "domain", "n", "metric"], columns="method", values="oriented"
        ).dropna()
        if wide.empty or wide.shape[1] < 2:
            continue
        found = stats.rank_stability(wide.to_numpy(float))
        for method, rank in zip(wide.columns, found.mean_rank, strict=True):
            row = {"metric": name, "method": method, "mean_rank": rank}
            rows.append({**row, "concordance": found.concordance, "cells": len(wide)})
    names = ["metric", "method", "mean_rank", "concordance", "cells"]
    return pd.DataFrame(rows, columns=names)
