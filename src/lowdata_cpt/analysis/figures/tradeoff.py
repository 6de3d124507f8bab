"""Task trade-off: what a method gains on one task against what it gains on another, on the same images."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lowdata_cpt.analysis.style import (
    INK,
    PAGE_WIDTH,
    domain_label,
    house_style,
    method_handles,
    ordered,
    panels,
    save,
    style_of,
)
from lowdata_cpt.analysis.summary import cell_statistics, main_rows, seeds_text, sizes_text
from lowdata_cpt.analysis.table import METRICS

AXES = ("linear_accuracy", "miou", "rmse")


def draw_tradeoff(scores: pd.DataFrame, out: Path) -> list[Path]:
    """Draw the gain on one task against the gain on another for every domain that has both.

    Returns:
        The files written; empty if no domain has two tasks.
    """
    rows = main_rows(scores)
    cells = cell_statistics(rows)
    cells = cells[cells["gain"].notna() & cells["metric"].isin(AXES)]
    index = ["backbone", "domain", "method", "n"]
    wide = cells.pivot(index=index, columns="metric", values=["shown_gain", "shown_low", "shown_high"])
    shown = []
    for x, y in combinations(AXES, 2):
        if ("shown_gain", x) not in wide or ("shown_gain", y) not in wide:
            continue
        both = wide[wide["shown_gain", x].notna() & wide["shown_gain", y].notna()]
        for (backbone, domain), part in both.groupby(level=["backbone", "domain"]):
            shown.append((x, y, str(backbone), str(domain), part.reset_index()))
    if not shown:
        return []
    shown.sort(key=lambda panel: (panel[3] != "tabletop", panel[3], panel[2]))
    with house_style():
        columns = min(4, len(shown)) if len(shown) != 6 else 3
        figure, axes = panels(len(shown), columns, min(PAGE_WIDTH, 2.5 * columns), 2.05)
        for axis, (x, y, backbone, domain, part) in zip(axes, shown, strict=True):
            _plane(axis, part, x, y)
            several = cells["backbone"].nunique() > 1
            axis.set_title(domain_label(domain) + (f" · {backbone}" if several else ""))
            axis.set_xlabel(f"{METRICS[x].short} gain ({METRICS[x].gain_unit})")
            axis.set_ylabel(f"{METRICS[y].short} gain ({METRICS[y].gain_unit})")
        handles = method_handles(cells["method"])
        figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)))
        source = pd.concat([_source(*panel) for panel in shown], ignore_index=True)
        return save(figure, out, "tradeoff", _caption(rows, cells), source)


def _plane(axis: Axes, part: pd.DataFrame, x: str, y: str) -> None:
    for method in ordered(part["method"]):
        look = style_of(method)
        run = part[part["method"] == method].sort_values("n")
        gx, gy = run["shown_gain", x].to_numpy(float), run["shown_gain", y].to_numpy(float)
        axis.plot(gx, gy, color=look.color, linestyle=look.line, linewidth=0.9, alpha=0.8)
        for position, (px, py) in enumerate(zip(gx, gy, strict=True)):
            size = 3 + 3.5 * (position + 1) / len(gx)
            axis.plot(
                px, py, look.marker, color=look.color, markersize=size, markeredgecolor="white", markeredgewidth=0.4
            )
        last = run.iloc[-1]
        if np.isfinite(last["shown_low", x]) and np.isfinite(last["shown_low", y]):
            axis.hlines(gy[-1], last["shown_low", x], last["shown_high", x], color=look.color, linewidth=0.7, alpha=0.6)
            axis.vlines(gx[-1], last["shown_low", y], last["shown_high", y], color=look.color, linewidth=0.7, alpha=0.6)
    axis.margins(0.1)
    axis.axhline(0, color=INK, linewidth=0.8, zorder=1)
    axis.axvline(0, color=INK, linewidth=0.8, zorder=1)
    left, right = axis.get_xlim()
    bottom, top = axis.get_ylim()
    axis.fill_between([0, max(right, 0)], 0, max(top, 0), color="#009E73", alpha=0.08, linewidth=0, zorder=0)
    axis.fill_between([min(left, 0), 0], min(bottom, 0), 0, color="#D55E00", alpha=0.06, linewidth=0, zorder=0)
    axis.set_xlim(left, right)
    axis.set_ylim(bottom, top)


def _source(x: str, y: str, backbone: str, domain: str, part: pd.DataFrame) -> pd.DataFrame:
    table = pd.DataFrame({"backbone": backbone, "domain": domain, "method": part["method"], "n": part["n"]})
    table["x_metric"], table["y_metric"] = x, y
    for axis, metric in (("x", x), ("y", y)):
        for name in ("gain", "low", "high"):
            table[f"{axis}_{name}"] = part[f"shown_{name}", metric]
    return table


def _caption(scores: pd.DataFrame, cells: pd.DataFrame) -> str:
    text = (
        "**Does a gain on one task cost another?** Gain over base on two tasks probed on the same backbone and domain "
        f"(test split; points, for RMSE % of the base's; green shade: both better, red: both worse). "
        f"Lines join {sizes_text(scores)}, markers grow with n; means over {seeds_text(scores[scores['n'] > 0])}. "
    )
    if cells["shown_low"].isna().all():
        return text + "One seed: no confidence interval can be given and none is drawn."
    return text + "Crosses at the largest n are 95 % Student intervals, paired by seed."
