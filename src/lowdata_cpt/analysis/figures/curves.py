"""Training-curve sheets: loss, its named parts and the learning rate against images seen."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lowdata_cpt.analysis.figures.cost import compact
from lowdata_cpt.analysis.style import (
    INK,
    MUTED,
    PAGE_WIDTH,
    domain_label,
    house_style,
    is_variant,
    ordered,
    panels,
    save,
    style_of,
)

COLUMNS = 5
POINTS = 150  # longer curves are averaged into this many steps: a page cannot show more


def draw_curves(curves: pd.DataFrame, out: Path) -> list[Path]:
    """Draw one sheet per backbone and domain: the parts of a method side by side, one line an n.

    Lines are means over seeds, bands their range. Variants are left out.

    Returns:
        The files written.
    """
    paths: list[Path] = []
    curves = curves[~curves["method"].map(is_variant).astype(bool)]
    for (backbone, domain), group in curves.groupby(["backbone", "domain"]):
        paths += _sheet(group, out, str(backbone), str(domain))
    return paths


def _rows(group: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Return (method, parts) of each row: the loss first, the learning rate last, at most COLUMNS parts in a row."""
    rows = []
    for method in ordered(group["method"]):
        parts = set(group.loc[group["method"] == method, "part"])
        line = [*(parts & {"loss"}), *sorted(parts - {"loss", "lr"}), *(parts & {"lr"})]
        rows += [(method, line[start : start + COLUMNS]) for start in range(0, len(line), COLUMNS)]
    return rows


def _sheet(group: pd.DataFrame, out: Path, backbone: str, domain: str) -> list[Path]:
    rows = _rows(group)
    width = max(len(parts) for _, parts in rows)
    sizes = sorted(group["n"].unique())
    shades = {n: 0.62 * (1 - (index + 1) / len(sizes)) for index, n in enumerate(sizes)}
    sources = []
    with house_style():
        figure, axes = panels(len(rows) * width, width, min(PAGE_WIDTH, 2.3 * width + 0.6), 1.25)
        for row, (method, parts) in enumerate(rows):
            for column in range(width):
                axis = axes[row * width + column]
                if column >= len(parts):
                    axis.remove()
                    continue
                part = parts[column]
                picked = group[(group["method"] == method) & (group["part"] == part)]
                sources.append(_panel(axis, picked, method, shades))
                axis.set_title(
                    part.replace("_", " ") if part != "lr" else "learning rate", fontweight="normal", color=MUTED
                )
                if row == len(rows) - 1:
                    axis.set_xlabel("images seen")
                if column == 0 and (row == 0 or rows[row - 1][0] != method):
                    look = style_of(method)
                    label = "\n".join(wrap(look.label, 15))
                    axis.set_ylabel(label, fontweight="bold", color=look.color, fontsize=6.5)
        handles = [Line2D([], [], color=_shade(INK, shades[n]), label=f"n = {n}") for n in sizes]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(sizes)))
        source = pd.concat(sources, ignore_index=True)
        caption = _caption(group, backbone, domain)
        return save(figure, out, f"curves-{backbone}-{domain}", caption, source)


def _shade(color: str, white: float) -> tuple[float, float, float]:
    red, green, blue = to_rgb(color)
    return (red + (1 - red) * white, green + (1 - green) * white, blue + (1 - blue) * white)


def _panel(axis: Axes, picked: pd.DataFrame, method: str, shades: dict[int, float]) -> pd.DataFrame:
    summaries = []
    for n, run in picked.groupby("n"):
        # Seeds of one n log the same steps, so a shared bin holds one span of training of each seed.
        count = max(1, -(-run["step"].nunique() // POINTS))
        place = run["step"].rank(method="dense").astype(int).sub(1) // count
        seeds = run.groupby([place.rename("bin"), "seed"])[["images_seen", "value"]].mean()
        table = seeds.groupby(level="bin").agg(
            images_seen=("images_seen", "mean"),
            mean=("value", "mean"),
            low=("value", "min"),
            high=("value", "max"),
        )
        color = _shade(style_of(method).color, shades[int(str(n))])
        axis.plot(table["images_seen"], table["mean"], color=color, linewidth=1.1)
        axis.fill_between(table["images_seen"], table["low"], table["high"], color=color, alpha=0.22, linewidth=0)
        summaries.append(table.reset_index(drop=True).assign(method=method, part=picked["part"].iloc[0], n=n))
    axis.xaxis.set_major_locator(MaxNLocator(3))
    axis.yaxis.set_major_locator(MaxNLocator(4))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value) if value else "0"))
    lost = int((~np.isfinite(picked["value"])).sum())
    if lost:
        axis.text(0.98, 0.95, f"{lost} values not finite", transform=axis.transAxes, ha="right", va="top", fontsize=6)
    axis.ticklabel_format(axis="y", scilimits=(-3, 4))
    axis.yaxis.get_offset_text().set_fontsize(6)
    return pd.concat(summaries, ignore_index=True)[["method", "part", "n", "images_seen", "mean", "low", "high"]]


def _caption(group: pd.DataFrame, backbone: str, domain: str) -> str:
    seeds = group["seed"].nunique()
    sizes = ", ".join(str(n) for n in sorted(group["n"].unique()))
    band = "Lines are means, bands the range over seeds (not a confidence interval)."
    if seeds == 1:
        band = "One seed: no band."
    return (
        f"**Training curves on {domain_label(domain)}** ({backbone}; n = {sizes}; "
        f"{seeds} seed{'s' if seeds > 1 else ''}). Of each method: its loss, the loss's named parts, the "
        f"learning rate. {band} Losses of different methods are not comparable."
    )
