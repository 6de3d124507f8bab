"""Gain over base: against the number of images in every domain, and pooled over domains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from lowdata_cpt.analysis.style import (
    INK,
    PAGE_WIDTH,
    domain_label,
    domain_labels,
    house_style,
    is_variant,
    method_handles,
    ordered,
    panels,
    save,
    style_of,
)
from lowdata_cpt.analysis.summary import (
    LIMITS,
    cell_statistics,
    main_rows,
    on_fewer_domains,
    seeds_text,
    sizes_text,
    summary,
)
from lowdata_cpt.analysis.table import HEADLINE, METRICS, UNTRAINED, held_out, records

SPREAD = 0.022  # share of the axis by which neighbouring methods are set apart, so that intervals stay legible


def draw_gain_by_n(scores: pd.DataFrame, out: Path) -> list[Path]:
    """Draw gain over base against n, one panel per headline metric and domain.

    Points are means over seeds; bars the paired 95 % Student interval, left out where a cell has one seed.

    Returns:
        The files written; empty if nothing was trained.
    """
    cells = cell_statistics(main_rows(scores))
    cells = cells[cells["gain"].notna() & cells["metric"].isin(list(HEADLINE))]
    if cells.empty:
        return []
    places = _panels(cells)
    columns = min(len(places), 4 if len(places) > 6 or len(places) == 4 else 3)
    with house_style():
        figure, axes = panels(len(places), columns, PAGE_WIDTH if columns > 2 else 2.6 * columns, 1.7)
        for index, (axis, (metric, backbone, domain)) in enumerate(zip(axes, places, strict=True)):
            picked = (cells["metric"] == metric) & (cells["backbone"] == backbone)
            _lines(axis, cells[picked & (cells["domain"] == domain)])
            place = domain_label(domain) + (f" · {backbone}" if cells["backbone"].nunique() > 1 else "")
            axis.set_title(f"{place}\n{METRICS[metric].short} ({METRICS[metric].gain_unit})")
            if index % columns == 0:
                axis.set_ylabel("gain over base")
            if index + columns >= len(places):
                axis.set_xlabel("pretraining images n")
        handles = method_handles(cells["method"])
        figure.legend(handles=handles, loc="outside lower center", ncols=min(2 * columns, 6, len(handles)))
        return save(figure, out, "gain_by_n", _caption_by_n(scores, cells), cells)


def _panels(cells: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Return (metric, backbone, domain) of each panel: tabletop, NYUv2, then the others, metrics in a fixed order."""
    found = cells[["metric", "backbone", "domain"]].drop_duplicates()
    order = {metric: index for index, metric in enumerate(HEADLINE)}
    return sorted(
        ((str(row["metric"]), str(row["backbone"]), str(row["domain"])) for row in records(found)),
        key=lambda panel: (panel[1], panel[2] != "tabletop", panel[2] != "nyuv2", panel[2], order[panel[0]]),
    )


def _lines(axis: Axes, cells: pd.DataFrame) -> None:
    methods = ordered(cells["method"])
    sizes = sorted(cells["n"].unique())
    reach = np.log10(sizes[-1] / sizes[0]) if len(sizes) > 1 else 1.0
    for index, method in enumerate(methods):
        look = style_of(method)
        part = cells[cells["method"] == method].sort_values("n")
        shift = 10 ** (SPREAD * reach * (index - (len(methods) - 1) / 2))
        x = part["n"].to_numpy(float) * shift
        y = part["shown_gain"].to_numpy(float)
        known = part["shown_low"].notna().to_numpy()
        axis.plot(x, y, color=look.color, linestyle=look.line, marker=look.marker, markerfacecolor=look.face)
        low, high = part["shown_low"].to_numpy(float), part["shown_high"].to_numpy(float)
        axis.vlines(x[known], low[known], high[known], color=look.color, linewidth=0.9, alpha=0.75)
    axis.axhline(0, color=INK, linewidth=0.8, zorder=1)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator([float(n) for n in sizes]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticklabels([str(n) for n in sizes])
    axis.margins(x=0.1, y=0.1)


def interval_sentence(cells: pd.DataFrame, scores: pd.DataFrame) -> str:
    """Say what the bars are, or that one seed gives none."""
    if cells["shown_low"].notna().any():
        return (
            f"Points are means over {seeds_text(scores[scores['n'] > 0])}; bars are 95 % Student confidence "
            "intervals of the gain paired by seed (they cover subset and training randomness; the test set is fixed)."
        )
    return "One seed: no confidence interval can be given and none is drawn."


def _caption_by_n(scores: pd.DataFrame, cells: pd.DataFrame) -> str:
    return (
        "**Gain over the untouched backbone against the number of unlabelled images.** One panel per domain and "
        "headline metric on the test split; above zero is better, also for depth RMSE, whose gain is the "
        "reduction in % of the base's RMSE (others: percentage points). "
        f"{interval_sentence(cells, scores)} {sizes_text(scores)}; controls are dashed. "
        "Methods are set slightly apart along n for legibility."
    )


# Family of comparisons (see `summary`) → file name, title of its caption, axis label.
FAMILIES = {
    "base": ("gain_summary", "Gain over the untouched backbone", "gain over base"),
    "control": ("gain_over_control", "Gain over the control at the same n", "gain over control"),
    "parent": ("ablations", "What a variant gains or loses against the full method", "gain over full method"),
}


def draw_gain_summary(scores: pd.DataFrame, out: Path) -> list[Path]:
    """Draw the gain pooled over domains, n and seeds: one row a method, one panel a headline metric.

    One figure a family: the gain over `base`, over each method's `control`, of variants over their `parent`.

    The point is the mean with its Student interval, stratified by domain; the interquartile mean with its
    bootstrap interval, too narrow with few seeds, stands in the source table. A filled marker: the paired
    Student test stays below .05 after Holm's correction.

    Returns:
        The files written; none for a family in which no method is compared.
    """
    table = summary(scores)
    present = [] if table.empty else [family for family in FAMILIES if (table["family"] == family).any()]
    return [
        path
        for family in present
        for path in _family(scores, table[table["family"] == family].reset_index(drop=True), out, family)
    ]


def _family(scores: pd.DataFrame, table: pd.DataFrame, out: Path, family: str) -> list[Path]:
    name, title, axis_label = FAMILIES[family]
    metrics = [name for name in HEADLINE if name in set(table["metric"])]
    methods = ordered(table["method"])
    with house_style():
        figure, axes = panels(len(metrics), len(metrics), max(3.4, 1.8 * len(metrics)), 0.75 + 0.22 * len(methods))
        for axis, metric in zip(axes, metrics, strict=True):
            _forest(axis, table[table["metric"] == metric], methods)
            domains = int(table.loc[table["metric"] == metric, "domains"].max())
            axis.set_title(METRICS[metric].label)
            axis.set_xlabel(f"{axis_label} ({METRICS[metric].gain_unit})\n{domains} domain{'s' * (domains > 1)}")
        for axis in axes[1:]:
            axis.tick_params(labelleft=False)
        return save(figure, out, name, _caption_summary(held_out(scores), table, title), table)


def _forest(axis: Axes, table: pd.DataFrame, methods: list[str]) -> None:
    for row in records(table):
        look = style_of(str(row["method"]))
        y = methods[::-1].index(str(row["method"]))
        if np.isfinite(row["ci_low"]):
            axis.hlines(y, row["ci_low"], row["ci_high"], color=look.color, linewidth=2.2, alpha=0.85)
        sure = bool(row["p_holm"] < 0.05)
        axis.plot(
            row["mean"],
            y,
            look.marker,
            color=look.color,
            markerfacecolor=look.color if sure else "white",
            markersize=5,
        )
    axis.axvline(0, color=INK, linewidth=0.8, zorder=1)
    against = dict(zip(table["method"], table["reference"], strict=True))
    labels = {name: style_of(name).label for name in methods}
    for name, reference in against.items():
        if reference not in UNTRAINED and not is_variant(name):
            labels[name] += f" vs {style_of(reference).label.removesuffix(' (control)')}"
    axis.set_yticks(range(len(methods)), [labels[name] for name in methods[::-1]])
    axis.set_ylim(-0.6, len(methods) - 0.4)
    axis.grid(axis="y", visible=False)
    axis.margins(x=0.12)


def _caption_summary(scores: pd.DataFrame, table: pd.DataFrame, title: str) -> str:
    text = (
        f"**{title}, pooled over domains, sizes and seeds** (test split, "
        f"{sizes_text(scores)}, {seeds_text(scores[scores['n'] > 0])}). "
    )
    unequal = table.loc[~table["equal_images"].astype(bool), "method"]
    if len(unequal):
        names = ", ".join(style_of(name).label for name in ordered(unequal))
        text += f"Images seen differ from the reference's for {names}. "
    if table["ci_low"].isna().all():
        return text + "One seed: no confidence interval can be given and none is drawn."
    fewer = table[on_fewer_domains(table)]
    if len(fewer):
        cells = (
            f"{style_of(row['method']).label} in {METRICS[row['metric']].label} ({domain_labels(row['over'])} only)"
            for row in records(fewer)
        )
        text += f"On fewer domains than the others, and so no fair neighbour to them: {'; '.join(cells)}. "
    text += (
        "Points are means over domains, bars 95 % Student intervals stratified by domain. A filled marker means that "
        "the paired Student test is below .05 after Holm's correction over all methods and headline metrics; "
    )
    fewest = int(table["clusters"].min())
    return text + (
        f"the exact sign-flip test is in the source table (with {fewest} paired seeds its p cannot fall below "
        f"{2 / 2**fewest:.2g}), and so is the interquartile mean with its bootstrap interval. {LIMITS}"
    )
