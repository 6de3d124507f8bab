"""Claims at a glance: what was measured, its interval, and the paper's value."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.lines import Line2D

from lowdata_cpt.analysis.claims import Result, count_verdicts
from lowdata_cpt.analysis.style import INK, MUTED, house_style, panels, save

COLORS = {
    "reproduced": "#009E73",
    "not reproduced": "#D55E00",
    "inconclusive": "#767676",
    "budget too small": "#b0b0b0",
}
COLORS |= {"yes": COLORS["reproduced"], "no": COLORS["not reproduced"], "open": COLORS["inconclusive"]}


def draw_claims(results: list[Result], out: Path) -> list[Path]:
    """Draw one row a claim that was run, in points (% for RMSE).

    Returns:
        The files written; empty if no claim was run.
    """
    run = [result for result in results if result.measured is not None]
    if not run:
        return []
    with house_style():
        figure, (axis,) = panels(1, 1, 6.6, 0.75 + 0.21 * len(run))
        for y, result in enumerate(reversed(run)):
            color = COLORS[result.verdict]
            if result.ci_low is not None and result.ci_high is not None:
                axis.hlines(y, result.ci_low, result.ci_high, color=color, linewidth=2)
            axis.plot(result.measured or 0, y, "o", color=color, markersize=5)
            if result.paper_value is not None:
                full = result.tolerance is not None
                axis.plot(
                    result.paper_value,
                    y,
                    "D",
                    color=INK,
                    markersize=4.5,
                    markerfacecolor=INK if full else "white",
                )
        axis.axvline(0, color=INK, linewidth=0.8, zorder=1)
        axis.set_yticks(range(len(run)), [result.id for result in reversed(run)])
        axis.set_ylim(-0.7, len(run) - 0.3)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("method − reference, positive = better (points; % for RMSE)")
        for y, result in enumerate(reversed(run)):
            axis.annotate(
                f"expected {result.direction.replace('_', ' ')}: {result.verdict}",
                (1.01, y),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=6.5,
                color=COLORS[result.verdict],
            )
        handles = [Line2D([], [], color=c, marker="o", label=name) for name, c in COLORS.items()]
        marker = {"color": INK, "marker": "D", "linestyle": "none", "markersize": 4.5}
        handles.append(Line2D([], [], label="paper's value", **marker))  # type: ignore[arg-type]
        handles.append(Line2D([], [], label="paper's, other data", markerfacecolor="white", **marker))  # type: ignore[arg-type]
        figure.legend(handles=handles, loc="outside lower center", ncols=5, labelcolor=MUTED, fontsize=7)
        return save(figure, out, "claims", _caption(results), pd.DataFrame([result.model_dump() for result in results]))


def _caption(results: list[Result]) -> str:
    return (
        f"**The papers' claims against this study**: {count_verdicts(results)}. Points are means over "
        "domains and seeds of the paired difference, bars 95 % intervals (none where a cell has one seed); n, "
        "seeds and cells of each claim "
        "are in the table of claims. Filled diamonds: the paper's value counts in the verdict; open ones come from "
        "other data and only their direction does. Claims that were not run are not drawn."
    )
