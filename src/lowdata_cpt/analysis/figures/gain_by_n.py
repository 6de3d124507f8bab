"""Does it use more images? Gain over base against n, at equal epochs and at equal images seen."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lowdata_cpt.analysis.figures.axes import log_axis, panels_of, rows_of, title_of
from lowdata_cpt.analysis.outcomes import Outcomes
from lowdata_cpt.analysis.study_files import StudyFiles
from lowdata_cpt.analysis.style import (
    INK,
    MUTED,
    PAGE_WIDTH,
    Drawing,
    is_variant,
    method_handles,
    nothing,
    ordered,
    panels,
    style_of,
)
from lowdata_cpt.analysis.summary import covers_text, gain_curve, seeds_text, sizes_text
from lowdata_cpt.analysis.table import HEADLINE, METRICS, SAME_IMAGES

LINE = ["backbone", "domain", "metric", "method"]


def draw_gain_by_n(files: StudyFiles) -> Drawing:
    """Draw one panel per domain and headline metric in which a method was run at several n."""
    scores = files.scores[files.scores["metric"].isin(HEADLINE)]
    scores = scores[(scores["n"] == 0) | ~scores["method"].map(is_variant).astype(bool)]
    table = gains_by_n(scores, files.outcomes)
    if table.empty:
        return nothing("No method was run at several n: there is no trend in n.")
    shown, several = panels_of(table), table["backbone"].nunique() > 1
    columns = min(len(shown), 3 if len(shown) != 4 else 4)
    figure, axes = panels(len(shown), columns, PAGE_WIDTH if columns > 2 else 2.9 * columns + 0.4, 1.9)
    for index, (axis, panel) in enumerate(zip(axes, shown, strict=True)):
        _panel(axis, rows_of(table, panel))
        axis.set_title(title_of(panel, several, METRICS[panel[2]].gain_unit))
        if index % columns == 0:
            axis.set_ylabel("gain over base")
        if index + columns >= len(shown):
            axis.set_xlabel("unlabelled images n")
    both = table["at"].nunique() > 1
    handles = method_handles(table["method"])
    if both:
        handles += [Line2D([], [], color=MUTED, label="end of the run")]
        handles += [
            Line2D([], [], color=MUTED, linestyle=":", marker="o", markerfacecolor="white", label="equal images")
        ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)))
    return Drawing(figure, _caption(scores, table, both), table)


def gains_by_n(scores: pd.DataFrame, outcomes: Outcomes | None = None) -> pd.DataFrame:
    """Return the rows of `gain_curve` at which the sizes of a method are compared.

    Returns:
        Methods with several n only, with `at`: `end` of the run, and `equal images`: the largest number of images seen
        that all its sizes reached, left out where the runs end there anyway.
    """
    if not (scores["n"] > 0).any():
        return pd.DataFrame()
    curve = gain_curve(scores, outcomes=outcomes)
    curve = curve[(curve["images_seen"] > 0) & (curve.groupby(LINE)["n"].transform("nunique") > 1)]
    ends = curve[curve["images_seen"] == curve.groupby([*LINE, "n"])["images_seen"].transform("max")]
    common = ends.groupby(LINE)["images_seen"].min().rename("common").reset_index()
    ends = ends.merge(common, on=LINE)
    longer = ends["images_seen"] > (1 + SAME_IMAGES) * ends["common"]
    lines = ends.loc[longer, LINE].drop_duplicates()
    equal = curve.merge(common, on=LINE).merge(lines, on=LINE)
    equal = equal[(equal["images_seen"] - equal["common"]).abs() <= SAME_IMAGES * equal["common"]]
    table = pd.concat([ends.assign(at="end"), equal.assign(at="equal images")], ignore_index=True)
    return table.drop(columns="common")


def _panel(axis: Axes, rows: pd.DataFrame) -> None:
    for method in ordered(rows["method"]):
        look = style_of(method)
        for at, line in rows[rows["method"] == method].sort_values("n").groupby("at"):
            end = at == "end"
            x = line["n"] * (1.03 if end else 0.97)
            face = look.face if end else "white"
            axis.plot(x, line["mean"], color=look.color, linestyle="-" if end else ":", marker=look.marker, mfc=face)
            axis.vlines(x, line["ci_low"], line["ci_high"], color=look.color, linewidth=0.9, alpha=0.7)
    axis.axhline(0, color=INK, linewidth=0.8, zorder=1)
    log_axis(axis, rows["n"].astype(float))
    axis.margins(x=0.1, y=0.1)


def _caption(scores: pd.DataFrame, table: pd.DataFrame, both: bool) -> str:
    text = (
        f"**Gain over the untouched backbone against the number of unlabelled images** ({sizes_text(scores)}; test "
        f"split, {seeds_text(scores[scores['n'] > 0])}; points, for depth RMSE %; above zero is better). "
    )
    text += (
        "Full lines: at the end of each run, equal epochs where a recipe counts epochs, so that a larger n also sees "
        "more images. Dotted, open: at the number of images that every n of the method has seen. "
        if both
        else "All sizes of a method see the same number of images. "
    )
    if table["ci_low"].isna().all():
        return text + "One seed: no confidence interval can be given and none is drawn."
    return text + f"Bars: 95 % interval, paired by seed. {covers_text(table)}"
