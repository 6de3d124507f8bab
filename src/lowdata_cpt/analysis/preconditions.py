"""Whether a method acted at all, by its run's own log, and how much of its source's run a cell is.

A gain of a method whose loss never left its trivial level says nothing about the method. The trivial level is that of a
predictor that ignores the image: ln N or ln K for a cross-entropy over N images or K prototypes, whatever the targets
(label smoothing raises the floor of DIET-CP's loss, 1.41 at N = 100, not this level), and 1 − 1/tokens for a target
that is normalised over the tokens of an image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from scipy.stats import binomtest

from lowdata_cpt.analysis.style import FACTS, domain_label, parent_of, style_of
from lowdata_cpt.analysis.table import records
from lowdata_cpt.methods.facts import Precondition

Settings = Mapping[str, Any]
CELL = ["backbone", "domain", "method", "n"]
Cell = tuple[str, str, str, int]
COLUMNS = [*CELL, "part", "asks", "value", "level", "runs", "acted"]
SHARES = ["share_images", "share_updates", "share_rate_images"]
LAST = 0.1  # share of the logged steps over which an end is averaged


def cell_of(row: dict[str, Any]) -> Cell:
    """Return the cell that a row of a table is of."""
    return row["backbone"], row["domain"], row["method"], int(row["n"])


PRECONDITIONS = {name: of.acts for name, of in FACTS.items() if of.acts}
SOURCE_BUDGET = {name: of.source_budget for name, of in FACTS.items() if of.source_budget is not None}


def check_preconditions(
    curves: pd.DataFrame, study: Settings | None = None, cost: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Hold every cell's log against its method's preconditions, and its run against that of the method's source.

    Args:
        curves: as `read_curves` returns them.
        study: the study's resolved configuration (`study.json`): methods' kinds, prototypes, rates.
        cost: as in `cost.csv`, with `steps`.

    Returns:
        One row per (backbone, domain, method, n, part) with `asks`, `value` (mean over runs of the last tenth of the
        steps, or the share of steps above 0 in all runs), `level`, `runs`, `acted`, and `SHARES` of the source's
        images, updates, and rate × images, NaN where not known.
    """
    methods = (study or {}).get("methods", {})
    rows: list[dict[str, Any]] = []
    for key, logged in curves.groupby(CELL):
        cell: dict[str, Any] = dict(zip(CELL, key, strict=True))
        settings = methods.get(cell["method"], {})
        kind = kind_of(cell["method"], settings)
        for asked in PRECONDITIONS.get(kind, ()):
            part = logged[logged["part"] == asked.part]
            level = asked.level(int(cell["n"]), float(settings.get("prototypes", math.nan)))
            if not part.empty and math.isfinite(level):
                rows.append({**cell, "part": asked.part, **_held(asked, part, level)})
    table = pd.DataFrame(rows, columns=COLUMNS)
    if cost is None:
        return table.assign(**dict.fromkeys(SHARES, math.nan))
    spent = cost.groupby(CELL)[["images_seen", *(["steps"] if "steps" in cost else [])]].median().reset_index()
    shares = [_share(row, methods.get(row["method"], {})) for row in records(spent)]
    return table.merge(pd.DataFrame(shares, columns=[*CELL, *SHARES]), on=CELL, how="left")


def kind_of(method: str, settings: Settings) -> str:
    """Return the method that a row of the table is: by its settings, else by its name's beginning."""
    return str(settings.get("method") or (method if method in PRECONDITIONS else parent_of(method)))


def _held(asked: Precondition, part: pd.DataFrame, level: float) -> dict[str, Any]:
    runs = part.sort_values("step", kind="stable").groupby("seed")["value"]
    if asked.positive:
        share = float((part["value"] > 0).mean())
        asks = f"{asked.part} > 0 on more than half of {len(part)} steps beyond chance"
        acted = mostly_positive(part["value"])
        return {"asks": asks, "value": share, "level": level, "runs": runs.ngroups, "acted": acted}
    value = float(runs.apply(lambda run: run.tail(max(1, int(LAST * len(run)))).mean()).mean())
    asks = f"{asked.part} ends below {level:.2f}"
    return {"asks": asks, "value": value, "level": level, "runs": runs.ngroups, "acted": value < level}


def mostly_positive(values: pd.Series) -> bool:
    """Say whether more than half of the values are positive beyond chance (exact binomial test at .05, one-sided)."""
    return len(values) > 0 and bool(
        binomtest(int((values > 0).sum()), len(values), 0.5, alternative="greater").pvalue < 0.05
    )


def _share(row: dict[str, Any], settings: Settings) -> dict[str, Any]:
    cell = {name: row[name] for name in CELL}
    source = SOURCE_BUDGET.get(kind_of(row["method"], settings))
    if source is None:
        return cell
    images, updates = source.images, source.updates
    if source.per_image:
        images, updates = source.images * row["n"], source.images * math.ceil(source.updates / source.images * row["n"])
    share = row["images_seen"] / images
    lr = float(settings.get("optimiser", {}).get("lr", math.nan))
    return {
        **cell,
        SHARES[0]: share,
        SHARES[1]: row.get("steps", math.nan) / updates,
        SHARES[2]: share * lr / source.lr,
    }


def share_text(row: Mapping[str, Any]) -> str:
    """Say how much of its source's run a cell is; empty where nothing is known."""
    known = [(100 * row[name], what) for name, what in zip(SHARES, ("images", "updates", "rate × images"), strict=True)]
    parts = [f"{f'{share:.2g}' if share >= 1e-4 else '< 0.0001'} % of the {what}" for share, what in known if share > 0]
    return f"{', '.join(parts)} of its source's run" if parts else "its source states no budget"


def idle_text(idle: pd.DataFrame) -> str:
    """Say which methods did not act, where, and how near the nearest cell came: rows of `check_preconditions`."""
    parts = []
    for (method, part), rows in idle.groupby(["method", "part"], sort=False):
        nearest = min(records(rows), key=lambda row: abs(row["value"] - row["level"]))
        where = ", ".join(domain_label(name) for name in dict.fromkeys(rows["domain"]))
        held = f"{part} {nearest['value']:.2f}, asked for: {nearest['asks']}"
        parts.append(f"{style_of(str(method)).label} did not act on {where} (at best {held}; {share_text(nearest)})")
    return "; ".join(parts)
