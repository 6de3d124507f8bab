"""Probability of improvement of every method over every other, as a matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from lowdata_cpt.analysis.style import house_style, ordered, panels, save, style_of
from lowdata_cpt.analysis.summary import improvement, main_rows, seeds_text, sizes_text
from lowdata_cpt.analysis.table import HEADLINE, records

GROUPS = {
    "Classification": ("knn_accuracy", "linear_accuracy"),
    "Segmentation": ("miou",),
    "Depth": ("rmse",),
    "All tasks": HEADLINE,
}


def draw_improvement(scores: pd.DataFrame, out: Path) -> list[Path]:
    """Draw P(row better than column) per task and over all tasks.

    Returns:
        The files written; empty if nothing was trained.
    """
    rows = main_rows(scores)
    present = set(rows["metric"])
    groups = {name: metrics for name, metrics in GROUPS.items() if present & set(metrics)}
    if len(groups) == 2:
        del groups["All tasks"]
    table = improvement(rows, dict(groups))
    if table.empty:
        return []
    methods = ordered(table["method"])
    with house_style():
        columns = min(2, len(groups))
        figure, axes = panels(len(groups), columns, 6.3 if columns == 2 else 4.4, 2.75)
        for axis, group in zip(axes, groups, strict=True):
            _matrix(axis, table[table["group"] == group], methods)
            axis.set_title(group)
        for index, axis in enumerate(axes):
            if index % columns:
                axis.tick_params(labelleft=False)
            if index + columns < len(axes):
                axis.tick_params(labelbottom=False)
        bar = figure.colorbar(axes[-1].collections[0], ax=axes, shrink=0.6, aspect=30, pad=0.02)
        bar.set_label("P(row better than column)")
        bar.outline.set_visible(False)
        return save(figure, out, "improvement", _caption(rows, table), table)


def _matrix(axis: Axes, table: pd.DataFrame, methods: list[str]) -> None:
    grid = table.pivot(index="method", columns="over", values="probability").reindex(index=methods, columns=methods)
    text = grid.map(lambda p: "" if pd.isna(p) else "1" if p == 1 else f"{p:.2f}".removeprefix("0"))
    sns.heatmap(
        grid, ax=axis, cmap="PuOr_r", vmin=0, vmax=1, annot=text, fmt="", annot_kws={"fontsize": 6.5}, cbar=False
    )
    sure = {(row["method"], row["over"]) for row in records(table) if row["ci_low"] > 0.5 or row["ci_high"] < 0.5}
    shown = [(row, column) for row in methods for column in methods if text.loc[row, column]]
    for label, pair in zip([label for label in axis.texts if label.get_text()], shown, strict=True):
        label.set_fontweight("bold" if pair in sure else "normal")
    labels = [style_of(name).label.removesuffix(" (no training)") for name in methods]
    axis.set_xticks(np.arange(len(methods)) + 0.5, labels, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks(np.arange(len(methods)) + 0.5, labels, rotation=0)
    axis.set(xlabel="", ylabel="")
    axis.tick_params(length=0)
    axis.grid(visible=False)


def _caption(scores: pd.DataFrame, table: pd.DataFrame) -> str:
    text = (
        "**Probability that the row's method beats the column's** on the test split: P(X > Y) + ½ P(X = Y) for a "
        "random run of each within one cell (backbone, domain, n, headline metric), averaged over cells "
        f"({sizes_text(scores)}, {seeds_text(scores[scores['n'] > 0])}). "
    )
    if table["ci_low"].isna().all():
        return text + "One seed: no confidence interval can be given, so nothing is bold."
    return text + (
        "Each pair is compared over the cells that both have. Bold: the stratified-bootstrap interval (10,000 "
        "resamples of seeds; nominally 95 %, less with three seeds; not corrected for the number of pairs) leaves out "
        "one half."
    )
