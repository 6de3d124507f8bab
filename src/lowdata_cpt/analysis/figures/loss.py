"""Did the method act? Its loss beside the level of a predictor that ignores the image."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lowdata_cpt.analysis.figures.axes import compact
from lowdata_cpt.analysis.study_files import StudyFiles
from lowdata_cpt.analysis.style import (
    INK,
    PAGE_WIDTH,
    Drawing,
    domain_label,
    nothing,
    ordered,
    panels,
    style_of,
    without_variants,
)
from lowdata_cpt.analysis.table import records

POINTS = 150  # longer curves are averaged into this many steps: a page cannot show more
COLUMNS = 4


def draw_loss(files: StudyFiles, backbone: str, domain: str) -> Drawing:
    """Draw the loss of each method, and the parts that say whether it acted: one line per n, a dashed line to beat."""
    logged = files.curves
    logged = logged[(logged["backbone"] == backbone) & (logged["domain"] == domain)]
    logged = without_variants(logged)
    checks = files.checks
    checks = checks[(checks["backbone"] == backbone) & (checks["domain"] == domain)]
    shown = []
    for method in ordered(logged["method"]):
        asked = checks.loc[checks["method"] == method, "part"]
        known = set(logged.loc[logged["method"] == method, "part"])
        shown += [(method, part) for part in dict.fromkeys(["loss", *asked]) if part in known]
    if not shown:
        return nothing("No training was logged.")
    sizes = sorted(logged["n"].unique())
    whites = {n: 0.62 * (1 - (index + 1) / len(sizes)) for index, n in enumerate(sizes)}
    sources, columns = [], min(COLUMNS, len(shown))
    figure, axes = panels(len(shown), columns, min(PAGE_WIDTH, 2.3 * columns + 0.6), 1.55)
    for index, (axis, (method, part)) in enumerate(zip(axes, shown, strict=True)):
        runs = logged[(logged["method"] == method) & (logged["part"] == part)]
        rows = checks[(checks["method"] == method) & (checks["part"] == part)]
        sources.append(_panel(axis, runs, rows, style_of(method).color, whites))
        axis.set_title(f"{style_of(method).label}\n{part.replace('_', ' ')}", color=style_of(method).color)
        if index + columns >= len(shown):
            axis.set_xlabel("images seen")
    handles = [Line2D([], [], color=_lighter(INK, whites[n]), label=f"n = {n}") for n in sizes]
    handles.append(Line2D([], [], color=INK, linestyle=(0, (4, 2)), linewidth=0.9, label="level to beat"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)))
    source = pd.concat(sources, ignore_index=True)
    return Drawing(figure, _caption(logged, checks, backbone, domain), source)


def _lighter(color: str, white: float) -> tuple[float, float, float]:
    red, green, blue = (channel + (1 - channel) * white for channel in to_rgb(color))
    return red, green, blue


def _panel(axis: Axes, runs: pd.DataFrame, checks: pd.DataFrame, color: str, whites: dict[int, float]) -> pd.DataFrame:
    drawn = []
    levels = {row["n"]: (0.0 if " > 0 " in row["asks"] else row["level"]) for row in records(checks)}
    for n, run in runs.groupby("n"):
        # Seeds of one n log the same steps, so a shared bin holds one span of training of each seed.
        count = max(1, -(-run["step"].nunique() // POINTS))
        place = run["step"].rank(method="dense").astype(int).sub(1) // count
        seeds = run.groupby([place.rename("bin"), "seed"])[["images_seen", "value"]].mean()
        means = {"images_seen": ("images_seen", "mean"), "mean": ("value", "mean")}
        line = seeds.groupby(level="bin").agg(**means, low=("value", "min"), high=("value", "max"))
        shade = _lighter(color, whites[int(str(n))])
        axis.plot(line["images_seen"], line["mean"], color=shade, linewidth=1.1)
        axis.fill_between(line["images_seen"], line["low"], line["high"], color=shade, alpha=0.22, linewidth=0)
        if n in levels:
            axis.axhline(levels[n], color=shade, linewidth=0.9, linestyle=(0, (4, 2)))
        key = {"method": run["method"].iloc[0], "part": run["part"].iloc[0], "n": n, "level": levels.get(n)}
        drawn.append(line.reset_index(drop=True).assign(**key))
    axis.xaxis.set_major_locator(MaxNLocator(3))
    axis.yaxis.set_major_locator(MaxNLocator(4))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value) if value else "0"))
    return pd.concat(drawn, ignore_index=True)


def _caption(logged: pd.DataFrame, checks: pd.DataFrame, backbone: str, domain: str) -> str:
    counts = logged.groupby(["method", "n"])["seed"].nunique()
    seeds, most = int(counts.min()), int(counts.max())
    several = f"{most} seed{'s' * (most > 1)}" if seeds == most else f"{seeds} to {most} seeds"
    text = (
        f"**Loss while training on {domain_label(domain)}** ({backbone}, {several}; lines are "
        f"means, bands the range over seeds, no confidence interval; at most {POINTS} points). "
        "Dashed: the level that the end of the run must get below to count as training (that of a predictor that "
        "ignores the image, less a margin); for V-pretraining's value zero, to be above on most steps. "
    )
    idle = checks[~checks["acted"].astype(bool)]
    if len(idle):
        names = ", ".join(style_of(method).label for method in ordered(idle["method"]))
        return text + f"Not reached in some cell: {names}."
    return text + ("Every method with a level reached it." if len(checks) else "")
