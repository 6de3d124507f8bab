"""The answer as one picture that a phone can show: the gain of every method, a row per domain and task."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lowdata_cpt.analysis.figures.axes import panels_of, rows_of, title_of
from lowdata_cpt.analysis.preconditions import cell_of
from lowdata_cpt.analysis.study_files import StudyFiles
from lowdata_cpt.analysis.style import (
    GRID,
    INK,
    Drawing,
    method_handles,
    nothing,
    ordered,
    panels,
    style_of,
)
from lowdata_cpt.analysis.summary import covers_text, seeds_text
from lowdata_cpt.analysis.table import METRICS, records
from lowdata_cpt.analysis.tables import ACTED_NOT, idle_cells

ROWS = 8
ONE_A_TASK = ("knn_accuracy", "miou", "rmse")


def draw_answer(files: StudyFiles) -> Drawing:
    """Draw at most `ROWS` rows (domain and task); each has a dot with its interval per method."""
    if files.gains.empty:
        return nothing("Nothing was trained: there is no gain.")
    several = files.gains["backbone"].nunique() > 1
    found, idle = panels_of(files.gains), idle_cells(files.checks)
    knn_only = len(found) > ROWS
    if knn_only:
        found = [panel for panel in found if panel[2] in ONE_A_TASK]
    shown = found[:ROWS]
    table = files.gains.iloc[sorted(i for p in shown for i in rows_of(files.gains, p).index)]
    most = max(len(rows_of(table, panel)) for panel in shown)
    figure, (axis,) = panels(1, 1, 4.3, 0.85 + len(shown) * max(0.36, 0.1 + 0.07 * most) + 0.16 * -(-most // 3))
    for y, panel in enumerate(shown[::-1]):
        rows = {row["method"]: row for row in records(rows_of(table, panel))}
        methods = ordered(rows)
        if y % 2:
            axis.axhspan(y - 0.5, y + 0.5, color=GRID, alpha=0.5, linewidth=0, zorder=0)
        for index, method in enumerate(methods[::-1]):
            row, look = rows[method], style_of(method)
            height = y + 0.8 * ((index + 0.5) / len(methods) - 0.5)
            if np.isfinite(row["ci_low"]):
                axis.hlines(height, row["ci_low"], row["ci_high"], color=look.color, linewidth=2)
            face = "white" if cell_of(row) in idle else look.color
            axis.plot(row["mean"], height, look.marker, color=look.color, markerfacecolor=face, markersize=5)
    labels = [title_of(panel, several, METRICS[panel[2]].gain_unit) for panel in shown[::-1]]
    axis.set_yticks(range(len(shown)), labels, fontsize=8.5)
    axis.set_ylim(-0.5, len(shown) - 0.5)
    axis.grid(axis="y", visible=False)
    axis.axvline(0, color=INK, linewidth=1, zorder=1)
    axis.tick_params(axis="x", labelsize=8.5)
    axis.set_xlabel("gain over the untouched backbone → better", fontsize=8.5)
    _limit(axis, table[["mean", "ci_low", "ci_high"]].to_numpy(float))
    handles = method_handles(table["method"], line=False)
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(3, len(handles)), fontsize=8.5, handletextpad=0.2
    )
    trained = files.main[files.main["n"] > 0]
    left_out = f" The first {ROWS} of {len(found)}; the others are in the figure of gains." * (len(found) > ROWS)
    known = bool(table["ci_low"].notna().any())
    intervals = f"bars 95 % intervals. {covers_text(table)}" if known else "one seed, so no confidence interval."
    caption = (
        "**The answer**: gain of each method over the untouched backbone at the end of its run, one row per domain and "
        f"measure (test split; {seeds_text(trained)}); {intervals}{left_out}"
    )
    caption += " Of classification kNN accuracy only." * knn_only
    caption += f" Open: {ACTED_NOT}" * bool(idle)
    return Drawing(figure, caption, table)


def _limit(axis: Axes, values: NDArray[np.float64]) -> None:
    """Let the means set the axis where intervals are far wider."""
    means = np.append(values[:, 0], 0.0)
    reach = max(np.ptp(means), 1e-6)
    low = np.nanmin(np.append(values[:, 1].clip(means.min() - reach), means.min()))
    high = np.nanmax(np.append(values[:, 2].clip(None, means.max() + reach), means.max()))
    axis.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
