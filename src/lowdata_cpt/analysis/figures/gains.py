"""What each method gained at the end of its run: over base, and over what it is compared with."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lowdata_cpt.analysis.figures.axes import panels_of, rows_of, title_of
from lowdata_cpt.analysis.preconditions import Cell, cell_of
from lowdata_cpt.analysis.study_files import StudyFiles
from lowdata_cpt.analysis.style import INK, PAGE_WIDTH, Drawing, nothing, ordered, panels, short_label, style_of
from lowdata_cpt.analysis.summary import LIMITS, by_domain, covers_text, main_sizes, seeds_text
from lowdata_cpt.analysis.table import METRICS, at_end, held_out, records
from lowdata_cpt.analysis.tables import ACTED_NOT, IDLE, idle_cells


def draw_gains(files: StudyFiles) -> Drawing:
    """Draw the gain over base: one panel per domain and headline metric, one row per method."""
    if files.gains.empty:
        return nothing("Nothing was trained: there is no gain.")
    table = files.gains.assign(row=files.gains["method"])
    labels = {name: style_of(name).label for name in ordered(table["method"])}
    return _draw(files, table, labels, "Gain over the untouched backbone at the end of each run", "gain over base")


def draw_gains_over_reference(files: StudyFiles) -> Drawing:
    """Draw the gain of methods over their controls and own step zero, and of variants over the full method."""
    table = by_domain(main_sizes(files.scores), files.outcomes)
    table = table if table.empty else table[table["family"].isin(["before", "control", "parent"])]
    if table.empty:
        return nothing("No method was run beside its control, its own step 0 or the method that it is a variant of.")
    table = table.assign(row=table["method"] + "/" + table["reference"])
    rows = table.drop_duplicates("row").set_index("row")[["method", "reference"]]
    place = {name: index for index, name in enumerate(ordered(rows["method"]))}
    labels = {
        str(row): f"{style_of(method).label}\nvs {short_label(reference)}"
        for row, method, reference in sorted(rows.itertuples(name=None), key=lambda item: (place[item[1]], item[0]))
    }
    title = "Gain over the control at equal images seen, over the method's own step 0, and of variants over the method"
    return _draw(files, table, labels, title, "gain")


def _draw(files: StudyFiles, table: pd.DataFrame, labels: dict[str, str], title: str, axis_label: str) -> Drawing:
    shown, several = panels_of(table), table["backbone"].nunique() > 1
    columns = min(len(shown), 4)
    lines = max(text.count("\n") + 1 for text in labels.values())
    height = 0.62 + (0.15 + 0.15 * (lines - 1)) * len(labels)
    figure, axes = panels(len(shown), columns, PAGE_WIDTH if columns > 2 else 2.2 * columns + 1.4, height)
    idle = idle_cells(files.checks)
    for index, (axis, panel) in enumerate(zip(axes, shown, strict=True)):
        _forest(axis, rows_of(table, panel), list(labels), idle)
        axis.set_title(title_of(panel, several, METRICS[panel[2]].gain_unit))
        axis.set_yticks(range(len(labels)), list(labels.values())[::-1], fontsize=6.5)
        axis.tick_params(labelleft=index % columns == 0)
        if index + columns >= len(shown):
            axis.set_xlabel(axis_label)
    return Drawing(figure, _caption(files, table, title, idle), table.drop(columns="row"))


def _forest(axis: Axes, rows: pd.DataFrame, names: list[str], idle: set[Cell]) -> None:
    for row in records(rows):
        y, look = names[::-1].index(row["row"]), style_of(row["method"])
        if np.isfinite(row["ci_low"]):
            axis.hlines(y, row["ci_low"], row["ci_high"], color=look.color, linewidth=2, alpha=0.85)
        sure = bool(row["p_holm"] < 0.05)
        face = look.color if sure else "white"
        axis.plot(row["mean"], y, look.marker, color=look.color, markerfacecolor=face, markersize=4.5)
        if cell_of(row) in idle:
            axis.annotate(IDLE, (row["mean"], y), xytext=(2, 1), textcoords="offset points", color=look.color)
    axis.axvline(0, color=INK, linewidth=0.8, zorder=1)
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.grid(axis="y", visible=False)
    axis.margins(x=0.12)


def _caption(files: StudyFiles, table: pd.DataFrame, title: str, idle: set[Cell]) -> str:
    trained = at_end(held_out(files.main))
    text = (
        f"**{title}** (test split, {seeds_text(trained[trained['n'] > 0])}, each domain at its main n; points, for "
        "depth RMSE %; right of zero is better). "
    )
    if table["ci_low"].isna().all():
        return text + "One seed: no confidence interval can be given and none is drawn."
    text += (
        f"Bars: 95 % intervals. {covers_text(table)} Filled: significant after Holm's correction "
        f"over all gains shown. {LIMITS}"
    )
    return text + " No bar: not run." + f" {IDLE}: {ACTED_NOT}" * bool(idle)
