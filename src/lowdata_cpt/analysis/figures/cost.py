"""Cost against gain: images seen, seconds and trained parameters beside the gain over base."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lowdata_cpt.analysis import stats
from lowdata_cpt.analysis.style import (
    INK,
    PAGE_WIDTH,
    house_style,
    is_variant,
    method_handles,
    ordered,
    panels,
    save,
    style_of,
)
from lowdata_cpt.analysis.summary import cell_statistics, clusters_of, main_rows, seeds_text, sizes_text, strata_of
from lowdata_cpt.analysis.table import HEADLINE, METRICS, paired_gain, records

COSTS = {
    "images_seen": "images seen",
    "train_seconds": "training seconds",
    "trainable_parameters": "trained parameters",
}


def draw_cost(scores: pd.DataFrame, out: Path, cost: pd.DataFrame | None = None) -> list[Path]:
    """Draw gain over base against cost; one column a headline metric, one row a kind of cost.

    Where every method saw the same number of images, that row is left out and the caption says so.

    Args:
        scores: the tidy table.
        out: folder to write to.
        cost: `cost.csv`, for the trained parameters.

    Returns:
        The files written; empty if nothing was trained.
    """
    rows = main_rows(scores)
    cells = cell_statistics(rows)
    cells = cells[cells["gain"].notna() & cells["metric"].isin(list(HEADLINE))].reset_index(drop=True)
    if cells.empty:
        return []
    kinds = ["train_seconds"]
    seen = cells["images_seen"]
    if seen.max() > 1.01 * seen.min():
        kinds.insert(0, "images_seen")
    if cost is not None and not cost.empty:
        known = cost[~cost["method"].map(is_variant)]
        per_cell = known.groupby(["backbone", "domain", "method", "n"], as_index=False)["trainable_parameters"].mean()
        cells = cells.merge(per_cell, on=["backbone", "domain", "method", "n"], how="left")
        if cells["trainable_parameters"].notna().any():
            kinds.append("trainable_parameters")
    pooled = _pooled(rows, cells, kinds)
    metrics = [name for name in HEADLINE if name in set(cells["metric"])]
    with house_style():
        width = PAGE_WIDTH if len(metrics) > 2 else 2.7 * len(metrics) + 0.4
        figure, axes = panels(len(kinds) * len(metrics), len(metrics), width, 1.8)
        grid = np.array(axes).reshape(len(kinds), len(metrics))
        for row, kind in enumerate(kinds):
            for column, metric in enumerate(metrics):
                axis = grid[row, column]
                _cloud(axis, cells[cells["metric"] == metric], pooled[pooled["metric"] == metric], kind)
                axis.set_xlabel(COSTS[kind])
                if row == 0:
                    axis.set_title(METRICS[metric].label)
                if column == 0:
                    axis.set_ylabel("gain over base")
        handles = method_handles(cells["method"], line=False)
        figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)))
        return save(figure, out, "cost", _caption(rows, pooled, kinds), cells)


def _pooled(rows: pd.DataFrame, cells: pd.DataFrame, kinds: list[str]) -> pd.DataFrame:
    gains = paired_gain(rows, "base")
    table = []
    for (method, metric), group in cells.groupby(["method", "metric"]):
        part = gains[(gains["method"] == method) & (gains["metric"] == metric) & gains["shown_gain"].notna()]
        if part.empty:
            continue
        found = stats.t_interval(part["shown_gain"], strata_of(part), clusters_of(part))
        row = {"method": method, "metric": metric, "gain": found.estimate, "low": found.low, "high": found.high}
        table.append(row | {kind: group[kind].median() for kind in {"images_seen", *kinds}})
    return pd.DataFrame(table)


def _cloud(axis: Axes, cells: pd.DataFrame, pooled: pd.DataFrame, kind: str) -> None:
    for method in ordered(cells["method"]):
        look = style_of(method)
        part = cells[cells["method"] == method]
        sns.scatterplot(
            part, x=kind, y="shown_gain", ax=axis, color=look.color, marker=look.marker, s=9, alpha=0.28, linewidth=0
        )
    for row in records(pooled):
        look = style_of(str(row["method"]))
        x = float(row[kind])
        if np.isfinite(row["low"]):
            axis.vlines(x, row["low"], row["high"], color=look.color, linewidth=1.1)
        axis.plot(
            x, row["gain"], look.marker, color=look.color, markersize=7, markeredgecolor="white", markeredgewidth=0.6
        )
    axis.set_ylabel("")
    axis.axhline(0, color=INK, linewidth=0.8, zorder=1)
    values = cells[kind].to_numpy(float)
    positive = values[values > 0]
    if len(positive):
        axis.set_xscale("log")
        axis.set_xlim(positive.min() / 1.6, positive.max() * 1.6)
        subs = (1.0,) if positive.max() / positive.min() > 30 else (1.0, 2.0, 5.0)
        axis.xaxis.set_major_locator(LogLocator(subs=subs))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))


def compact(value: float) -> str:
    """Format a count for an axis: 12800 → 12.8k, 3.55e6 → 3.55M."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def _caption(scores: pd.DataFrame, pooled: pd.DataFrame, kinds: list[str]) -> str:
    text = (
        f"**Gain over the untouched backbone against its cost** ({', '.join(COSTS[kind] for kind in kinds)}). Small "
        "markers are cells (domain and n, mean over seeds), large ones the mean over a method's cells at the "
        f"median cost ({sizes_text(scores)}, {seeds_text(scores[scores['n'] > 0])}); gains in percentage points, for "
        f"RMSE in % "
        "of the base's; test split. "
        "Seconds are wall-clock of the training stage on the study's machine. "
    )
    if "images_seen" not in kinds:
        text += f"Every method saw the same number of images, {compact(float(pooled['images_seen'].mean()))}. "
    if pooled["low"].isna().all():
        return text + "One seed: no confidence interval can be given and none is drawn."
    return text + "Bars are 95 % Student intervals stratified by domain, paired by seed."
