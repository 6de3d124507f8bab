"""What validation labels buy: each run stopped at the milestone that scores best on them, step zero included.

The curve on test images shows where a run was best, which nobody knows beforehand. Stopped by validation, the choice is
one that a user can make, and a method that harms is left at its start.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from lowdata_cpt.analysis.measure import CELL
from lowdata_cpt.analysis.outcomes import Outcomes
from lowdata_cpt.analysis.style import BEFORE_OF
from lowdata_cpt.analysis.summary import gains_along, measured_by
from lowdata_cpt.analysis.table import HEADLINE, SIGN_OF

RUN = [*CELL, "seed"]


def chosen_milestones(scores: pd.DataFrame, before: Mapping[str, str] = BEFORE_OF) -> pd.DataFrame:
    """Return, for each run and headline metric, the images seen at the best validation score; the first of equal ones.

    Args:
        scores: the tidy table.
        before: each method's step zero; `base` where it names none.

    Returns:
        One row per (backbone, domain, method, n, task, metric, seed) with `images_seen`; 0 is the method's step zero.
    """
    val = scores[(scores["split"] == "val") & scores["metric"].isin(HEADLINE)]
    runs = val.loc[val["n"] > 0, RUN].drop_duplicates()
    own = runs["method"].map(lambda method: before.get(method, "base"))
    starts = runs.assign(before=own).merge(
        val[val["n"] == 0].drop(columns="n").rename(columns={"method": "before"}),
        on=[name for name in RUN if name not in ("method", "n")] + ["before"],
    )
    later = val[(val["n"] > 0) & (val["images_seen"] > 0)]
    found = pd.concat([starts[[*RUN, "images_seen", "value"]], later[[*RUN, "images_seen", "value"]]])
    oriented = found["metric"].map(SIGN_OF).astype(float) * found["value"]
    found = found.assign(oriented=oriented).sort_values([*RUN, "images_seen"], ignore_index=True)
    return found.loc[found.groupby(RUN)["oriented"].idxmax(), [*RUN, "images_seen"]]


def stopped_gain(
    scores: pd.DataFrame, outcomes: Outcomes | None = None, before: Mapping[str, str] = BEFORE_OF
) -> pd.DataFrame:
    """Return the gain over base on the test split of runs stopped by validation.

    Returns:
        One row per (backbone, domain, method, n, task, metric) with `images_seen` (median over seeds), `at_start` (how
        many seeds stay at step zero), `seeds`, and `mean, ci_low, ci_high, interval_covers, mde, p, p_sign_flip`.
    """
    rows = gains_along(scores[scores["metric"].isin(HEADLINE)], outcomes=outcomes, before=before)
    rows = rows.merge(chosen_milestones(scores, before), on=[*RUN, "images_seen"])
    counts = {
        "images_seen": ("images_seen", "median"),
        "at_start": ("images_seen", lambda seen: int((seen == 0).sum())),
    }
    said = rows.groupby(CELL).agg(**counts, seeds=("seed", "nunique"))
    return said.join(measured_by(rows, CELL)).reset_index()
