"""Claims at a glance: what was measured, its interval, and the reported value."""

from __future__ import annotations

import pandas as pd
from matplotlib.lines import Line2D

from lowdata_cpt.analysis.claims import Result, count_verdicts
from lowdata_cpt.analysis.study_files import StudyFiles
from lowdata_cpt.analysis.style import INK, MUTED, Drawing, nothing, panels

COLORS = {
    "reproduced": "#009E73",
    "not reproduced": "#D55E00",
    "inconclusive": "#767676",
    "budget too small": "#b0b0b0",
}
ANSWERED = {"yes": "reproduced", "no": "not reproduced", "open": "inconclusive"}


def draw_claims(files: StudyFiles) -> Drawing:
    """Draw one row per claim that was run, in points (% for RMSE)."""
    run = [result for result in files.claims if result.measured is not None]
    if not run:
        return nothing("No claim could be held against this study.")
    figure, (axis,) = panels(1, 1, 6.6, 0.75 + 0.21 * len(run))
    for y, result in enumerate(reversed(run)):
        color = COLORS[ANSWERED.get(result.verdict, result.verdict)]
        if result.ci_low is not None and result.ci_high is not None:
            axis.hlines(y, result.ci_low, result.ci_high, color=color, linewidth=2)
        axis.plot(result.measured or 0, y, "o", color=color, markersize=5)
        if result.paper_value is not None:
            face = INK if result.tolerance is not None else "white"
            axis.plot(result.paper_value, y + 0.3, "v", color=INK, markersize=4.5, markerfacecolor=face)
        expected = result.direction.replace("_", " ")
        label = result.verdict + f" (expected: {expected})" * (result.direction != "better")
        where = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 6.5}
        axis.annotate(label, (1.01, y), color=color, **where)  # type: ignore[arg-type]
    axis.axvline(0, color=INK, linewidth=0.8, zorder=1)
    axis.set_yticks(range(len(run)), [result.id for result in reversed(run)])
    axis.set_ylim(-0.7, len(run) - 0.3)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("method − reference, positive = better (points; % for RMSE)")
    given = {result.verdict for result in run}
    names = {verdict: [verdict, *(a for a, same in ANSWERED.items() if same == verdict)] for verdict in COLORS}
    present = {verdict: " / ".join(name for name in both if name in given) for verdict, both in names.items()}
    handles = [Line2D([], [], color=COLORS[v], marker="o", label=text) for v, text in present.items() if text]
    marker = {"color": INK, "marker": "v", "linestyle": "none", "markersize": 4.5}
    handles.append(Line2D([], [], label="reported value", **marker))  # type: ignore[arg-type]
    handles.append(Line2D([], [], label="reported, other data", markerfacecolor="white", **marker))  # type: ignore[arg-type]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, labelcolor=MUTED, fontsize=7)
    source = pd.DataFrame([result.model_dump() for result in files.claims])
    return Drawing(figure, _caption(files.claims), source)


def _caption(results: list[Result]) -> str:
    return (
        f"**The published claims against this study**: {count_verdicts(results)}. Points are means over "
        "domains and seeds of the paired difference, bars 95 % intervals (with one seed of test images alone, and then "
        "there is no verdict); n, seeds and cells of each claim are in the table of claims. Filled triangles: the "
        "reported value counts in the verdict; open ones come from other data and only their direction does. Claims "
        "that were not run are not drawn."
    )
