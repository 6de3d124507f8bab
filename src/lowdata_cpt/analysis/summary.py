"""From the tidy table to the statistics that figures, claims and the report share.

Whatever compares methods is about the ends of their runs, or their largest common milestone; `gain_curve` has them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from lowdata_cpt.analysis import stats
from lowdata_cpt.analysis.measure import (
    CELL,
    MEASURED,
    PLACE,
    change_with_n,
    domain_gain,
    gains,
    pooled_gain,
    with_replicates,
)
from lowdata_cpt.analysis.outcomes import Outcomes
from lowdata_cpt.analysis.style import BEFORE_OF, CONTROL_OF, is_variant, ordered, parent_of, without_variants
from lowdata_cpt.analysis.table import HEADLINE, METRICS, SIGN_OF, UNTRAINED, at_end, held_out, paired_gain

LIMITS = "Nothing here covers the choice of domains: it holds for these domains."


def covers_text(rows: pd.DataFrame) -> str:
    """Say in a sentence what the intervals of a table cover, by metric where it is not the same for all.

    Args:
        rows: with `metric` and `interval_covers`, empty where there is no interval.
    """
    known = rows[rows["interval_covers"] != ""].groupby("interval_covers")["metric"].unique()
    if known.empty:
        return "One seed and no outcomes: no interval."
    if len(known) == 1:
        return f"Intervals cover {known.index[0]}."
    named = [f"{covers} ({', '.join(METRICS[name].label for name in metrics)})" for covers, metrics in known.items()]
    return f"Intervals cover {'; '.join(named)}."


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


def cell_statistics(scores: pd.DataFrame, outcomes: Outcomes | None = None) -> pd.DataFrame:
    """Mean and sd over seeds of every cell and metric at the end of its run, with the gain over base.

    Returns:
        One row per cell: `mean, sd, seeds, images_seen, train_seconds` (median), then for trained methods `gain` in the
        metric's own unit and, in points or %, `shown_gain, shown_low, shown_high, interval_covers, mde, p,
        p_sign_flip`. NaN where there is no interval.
    """
    test = at_end(held_out(scores))
    names = {"mean": ("value", "mean"), "sd": ("value", "std"), "seeds": ("seed", "nunique")}
    # The median of the seconds: one run beside other work must not make a method look dear.
    names |= {"images_seen": ("images_seen", "mean"), "train_seconds": ("train_seconds", "median")}
    cells = test.groupby(CELL).agg(**names)
    paired = gains(test, "base", outcomes, complete=True)
    cells["gain"] = paired.groupby(CELL)["gain"].mean()
    shown = {"mean": "shown_gain", "ci_low": "shown_low", "ci_high": "shown_high"}
    return cells.join(measured_by(paired, CELL).rename(columns=shown)).reset_index()


def gains_along(
    scores: pd.DataFrame,
    reference: str = "base",
    outcomes: Outcomes | None = None,
    before: Mapping[str, str] = BEFORE_OF,
) -> pd.DataFrame:
    """Return the rows of `gains` on the test split at every milestone, with each method's own step zero at 0 images.

    Step zero is the untouched backbone, or `base_domain_norm` for a method that normalises by the domain (`before`
    says which), at the seeds of the runs. It is compared with `reference` where that is untrained, otherwise with
    `base`. Against a trained reference a milestone is there if both have it.
    """
    test = held_out(scores)
    parts = [gains(test, reference, outcomes, milestones=True)]
    zero = reference if reference in UNTRAINED else "base"
    for method, n in sorted(set(zip(parts[0]["method"], parts[0]["n"], strict=True))):
        name = before.get(method, "base")
        own = test[test["method"] == name].assign(method=method, n=n)
        start = paired_gain(pd.concat([own, test[test["method"] == zero]]), zero).query("method == @method")
        parts.append(with_replicates(start, outcomes, method=name, n=0))
    rows = pd.concat([part for part in parts if not part.empty] or parts, ignore_index=True)
    trained = parts[0][[*PLACE, "task", "metric", "method", "n", "seed"]].drop_duplicates()
    return rows.merge(trained, on=list(trained.columns))


def measured_by(rows: pd.DataFrame, place: list[str]) -> pd.DataFrame:
    """Return `domain_gain` of each group of rows of `gains`, with the columns `MEASURED`, indexed by `place`."""
    groups = rows.groupby(place)
    found = [domain_gain(part).row() for _, part in groups]
    return pd.DataFrame(found, index=groups.size().index, columns=MEASURED)


def gain_curve(
    scores: pd.DataFrame,
    reference: str = "base",
    outcomes: Outcomes | None = None,
    before: Mapping[str, str] = BEFORE_OF,
) -> pd.DataFrame:
    """Return the gain at every milestone (see `gains_along`).

    Intervals cover test images where the outcomes of a whole curve were kept: a band that covers them at its ends only
    would look surer in between.

    Returns:
        One row per (backbone, domain, task, metric, method, n, images_seen) with `mean, ci_low, ci_high,
        interval_covers, mde, p, p_sign_flip, seeds, train_seconds` (median), in points or %.
    """
    rows, place = gains_along(scores, reference, outcomes, before), [*CELL, "images_seen"]
    kept = rows["replicates"].map(lambda one: isinstance(one, np.ndarray)).groupby([rows[name] for name in CELL])
    rows["replicates"] = rows["replicates"].where(kept.transform("all"), None)
    spent = rows.groupby(place).agg(seeds=("seed", "nunique"), train_seconds=("train_seconds", "median"))
    return measured_by(rows, place).join(spent).reset_index()


def references_of(method: str) -> dict[str, str]:
    """Return what a method is compared with: family name → reference method."""
    parent = parent_of(method) if is_variant(method) else None
    if parent is not None:
        return {"parent": parent}
    others = {"control": CONTROL_OF.get(method), "before": BEFORE_OF.get(method)}
    return {"base": "base"} | {family: reference for family, reference in others.items() if reference}


def comparisons(
    scores: pd.DataFrame, outcomes: Outcomes | None = None
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield what each row of `summary` is about, and the rows of `gains` behind it."""
    test = held_out(scores)
    test = test[test["metric"].isin(list(HEADLINE))]
    methods = ordered(test.loc[test["n"] > 0, "method"])
    families = {method: references_of(method) | {"trend": "base"} for method in methods}
    against: dict[str, list[str]] = {}
    for method in methods:
        for reference in set(families[method].values()):
            against.setdefault(reference, []).append(method)
    found = {name: gains(test[test["method"].isin([*who, name])], name, outcomes) for name, who in against.items()}
    for method in methods:
        for family, reference in families[method].items():
            for metric in HEADLINE:
                part = found[reference]
                part = part[(part["metric"] == metric) & (part["method"] == method) & part["shown_gain"].notna()]
                part = change_with_n(part) if family == "trend" else part
                if not part.empty:
                    row = {"family": family, "method": method, "reference": reference, "metric": metric}
                    yield row | {"unit": METRICS[metric].gain_unit}, part


def summary(scores: pd.DataFrame, outcomes: Outcomes | None = None) -> pd.DataFrame:
    """Pooled gain of every method over base, its control, its own source's step 0, or (a variant) over its parent.

    For these domains only, and at one n: at equal epochs each n sees another number of images. The family `trend` holds
    the gain over base at each domain's largest n minus that at its smallest, paired by seed. Holm's correction runs
    over one family: all methods and headline metrics against the same kind of reference. The Student test carries it;
    the exact sign-flip test, free of its assumption but with p ≥ 2/2^clusters, stands beside it.

    Returns:
        One row per (family, method, reference, metric, n) with `over`, the counts behind it, `iqm, iqm_low, iqm_high`
        (bootstrap over seeds), `mean, ci_low, ci_high, interval_covers, mde, p, p_sign_flip, p_holm,
        p_sign_flip_holm`, and `equal_images`, whether both sides saw the same number of images (always true against
        base).
    """
    rows = []
    of_one_n = (
        (row | {"n": n}, part)
        for row, found in comparisons(scores, outcomes)
        for n, part in ([("", found)] if row["family"] == "trend" else found.groupby("n"))
    )
    for row, part in of_one_n:
        pooled = pooled_gain(part)
        places = list(zip(part["backbone"], part["domain"], strict=True))
        robust = stats.bootstrap_interval(part["shown_gain"], places, part["seed"].tolist())
        counts = {"over": " ".join(sorted(part["domain"].unique())), "domains": len(set(places))}
        counts |= {"cells": len(part[[*PLACE, "n"]].drop_duplicates()), "clusters": pooled.clusters}
        robust_row = {"iqm": robust.estimate, "iqm_low": robust.low, "iqm_high": robust.high}
        seen = (part["images_seen"] == part["reference_images_seen"]).all()
        equal = {"equal_images": row["family"] in ("base", "before") or bool(seen)}
        rows.append({**row, **counts, **robust_row, **pooled.row(), **equal})
    return _corrected(pd.DataFrame(rows))


def _corrected(table: pd.DataFrame) -> pd.DataFrame:
    """Add `p_holm` and `p_sign_flip_holm`: Holm's correction within each family."""
    if table.empty:
        return table
    for name in ("p", "p_sign_flip"):
        table[f"{name}_holm"] = np.nan
        for _, group in table.groupby("family"):
            table.loc[group.index, f"{name}_holm"] = stats.holm(group[name])
    return table


def by_domain(scores: pd.DataFrame, outcomes: Outcomes | None = None) -> pd.DataFrame:
    """Return the gains of `summary` on each domain, the table to read first.

    Holm's correction runs over all rows of a family.

    Returns:
        One row per (family, method, reference, metric, backbone, domain, n) with `seeds`, `images_seen`,
        `mean, ci_low, ci_high, interval_covers, mde, p, p_sign_flip, p_holm, p_sign_flip_holm`.
    """
    rows = []
    for row, part in comparisons(scores, outcomes):
        for (backbone, domain, n), found in part.groupby([*PLACE, "n"]):
            counts = {"seeds": found["seed"].nunique(), "images_seen": int(found["images_seen"].max())}
            rows.append({**row, "backbone": backbone, "domain": domain, "n": n, **counts, **domain_gain(found).row()})
    return _corrected(pd.DataFrame(rows))


def main_sizes(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the untrained rows, and of each domain the n at which most methods were run (of several, the smallest)."""
    trained = without_variants(scores[scores["n"] > 0])
    methods = trained.groupby([*PLACE, "n"])["method"].nunique().rename("methods").reset_index()
    best = methods.sort_values([*PLACE, "methods", "n"], ascending=[True, True, False, True]).drop_duplicates(PLACE)
    chosen = scores.merge(best[[*PLACE, "n"]].rename(columns={"n": "chosen"}), on=PLACE, how="left")
    return chosen[(chosen["n"] == 0) | (chosen["n"] == chosen["chosen"])].drop(columns="chosen").reset_index(drop=True)


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
    test = without_variants(at_end(held_out(scores)))
    test = test[(test["n"] > 0) & test["metric"].isin(HEADLINE)].copy()
    test["oriented"] = test["metric"].map(SIGN_OF).astype(float) * test["value"]
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
