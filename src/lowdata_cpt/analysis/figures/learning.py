"""The main figure: score against images seen, and against seconds of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lowdata_cpt.analysis.figures.axes import Panel, compact, log_axis, panels_of, rows_of, title_of
from lowdata_cpt.analysis.outcomes import Outcomes
from lowdata_cpt.analysis.preconditions import CELL, Cell
from lowdata_cpt.analysis.study_files import StudyFiles
from lowdata_cpt.analysis.style import (
    BEFORE_OF,
    INK,
    MUTED,
    PAGE_WIDTH,
    Drawing,
    domain_label,
    method_handles,
    nothing,
    ordered,
    panels,
    style_of,
)
from lowdata_cpt.analysis.summary import covers_text, gain_curve, seeds_text
from lowdata_cpt.analysis.table import HEADLINE, METRICS, OWN_BANK, SIGN_OF, held_out, records
from lowdata_cpt.analysis.tables import ACTED_NOT, IDLE, idle_cells

BEYOND = 3.0  # a source's length further right than this times the longest run is said in the caption alone
SEEDS_ALONE = (
    "Those of seeds alone have fewer degrees of freedom than the intervals of the runs' ends in the tables, which "
    "decide. "
)


def draw_learning(files: StudyFiles) -> Drawing:
    """Draw score against images seen: a panel per domain and headline metric, and DIET-CP's own; a line per method."""
    return _draw(files, "images_seen")


def draw_learning_seconds(files: StudyFiles) -> Drawing:
    """Draw the same against seconds of training."""
    return _draw(files, "train_seconds")


def curve_of_scores(
    scores: pd.DataFrame, outcomes: Outcomes | None = None, before: Mapping[str, str] = BEFORE_OF
) -> pd.DataFrame:
    """Return `gain_curve` over base with the mean score and its band, in what the axis shows: points, or metres.

    The band is the interval of the gain, which is paired by seed, laid around the mean score.

    Returns:
        The rows of `gain_curve` with `score, low, high, base`.
    """
    test = held_out(scores)
    parts = [gain_curve(scores[scores["metric"].isin(HEADLINE)], outcomes=outcomes, before=before)]
    own_bank = scores[scores["metric"] == OWN_BANK]
    for method in ordered(own_bank.loc[own_bank["images_seen"] == 0, "method"]):
        # Only the run's own start has the labels of its images, so the gain over it is what is drawn.
        own = before.get(method, "base")
        parts.append(gain_curve(own_bank[own_bank["method"] == method], own, outcomes, before))
    curve = pd.concat(parts, ignore_index=True)
    run = ["backbone", "domain", "metric", "method", "n"]
    values = {key: part.set_index("seed")["value"] for key, part in test.groupby([*run, "images_seen"])}
    seeds = {key: sorted(set(part["seed"])) for key, part in test.groupby(run)}
    rows = []
    for row in records(curve):
        metric, place = METRICS[row["metric"]], (row["backbone"], row["domain"], row["metric"])
        unit = 100.0 if metric.bounded else 1.0
        start = (row["method"], row["n"], 0) if metric.drawn else ("base", 0, 0)
        base = unit * values[(*place, *start)].mean()
        run_of = (row["method"], row["n"])
        at = (*run_of, row["images_seen"]) if row["images_seen"] else (before.get(row["method"], "base"), 0, 0)
        score = unit * values[(*place, *at)].reindex(seeds[(*place, *run_of)]).mean()
        # From the shown gain (points, % for an error) back to the axis.
        scale = (base / 100 if metric.relative else 1.0) * SIGN_OF[metric.name]
        ends = sorted(score + scale * (row[name] - row["mean"]) for name in ("ci_low", "ci_high"))
        if metric.bounded:
            ends = [float(np.clip(end, 0.0, unit)) for end in ends]
        rows.append({**row, "score": score, "low": ends[0], "high": ends[1], "base": base})
    return pd.DataFrame(rows)


def source_lengths(files: StudyFiles) -> dict[Cell, float]:
    """Return the images that a method's own source trains on, by (backbone, domain, method, n), where known."""
    if files.checks.empty or files.cost.empty:
        return {}
    seen = files.cost.groupby(CELL)["images_seen"].median().rename("images").reset_index()
    known = files.checks.drop_duplicates(CELL).merge(seen, on=CELL)
    known = known[known["share_images"] > 0]
    return dict(
        zip(known[CELL].itertuples(index=False, name=None), known["images"] / known["share_images"], strict=True)
    )


def _draw(files: StudyFiles, x: Literal["images_seen", "train_seconds"]) -> Drawing:
    if not (files.main["n"] > 0).any():
        return nothing("Nothing was trained: there is no learning curve.")
    curve = curve_of_scores(files.main, files.outcomes, files.before)
    lengths = source_lengths(files) if x == "images_seen" else {}
    shown, several = panels_of(curve), curve["backbone"].nunique() > 1
    columns = min(len(shown), 4 if len(shown) > 6 or len(shown) == 4 else 3)
    figure, axes = panels(len(shown), columns, PAGE_WIDTH if columns > 2 else 2.9 * columns + 0.4, 1.85)
    marked = set()
    for index, (axis, panel) in enumerate(zip(axes, shown, strict=True)):
        marked |= _panel(axis, rows_of(curve, panel), x, lengths)
        axis.set_title(title_of(panel, several, _unit(panel)))
        if index + columns >= len(shown):
            axis.set_xlabel("images seen" if x == "images_seen" else "seconds of training")
        if index % columns == 0:
            axis.set_ylabel("score on test images")
    handles = [Line2D([], [], color=INK, linestyle=(0, (4, 2)), linewidth=1, label="Base (no training)")]
    handles += method_handles(curve["method"])
    silent = {style_of(name).label for name in _silent(files, curve)}
    for handle in handles:
        handle.set_label(f"{handle.get_label()}{IDLE if handle.get_label() in silent else ''}")
    if marked:
        handles.append(Line2D([], [], color=MUTED, marker="^", linestyle="none", label="its source's length"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 2 * columns, 6))
    return Drawing(figure, _caption(files, curve, lengths, x), curve)


def _silent(files: StudyFiles, curve: pd.DataFrame) -> set[str]:
    """Return the methods that acted in none of the cells that are drawn."""
    shown = set(curve[CELL].itertuples(index=False, name=None))
    idle = idle_cells(files.checks) & shown
    return {method for _, _, method, _ in idle} - {method for _, _, method, _ in shown - idle}


def _unit(panel: Panel) -> str:
    metric = METRICS[panel[2]]
    return f"{metric.unit or 'points'}{'' if metric.higher else ', ↓'}"


def _panel(axis: Axes, rows: pd.DataFrame, x: str, lengths: dict[Cell, float]) -> set[str]:
    """Draw one panel; return the methods whose source's length is marked on the axis."""
    later = rows.loc[rows["images_seen"] > 0, x]
    first, last = max(float(later.min()), 1e-3), float(later.max())
    zero = first / 2.2
    axis.axhline(rows["base"].iloc[0], color=INK, linewidth=1, linestyle=(0, (4, 2)), zorder=1.5)
    for method in ordered(rows["method"]):
        look = style_of(method)
        line = rows[rows["method"] == method].sort_values("images_seen")
        at = line[x].where(line["images_seen"] > 0, zero).to_numpy(float)
        axis.plot(at, line["score"], color=look.color, linestyle=look.line, marker=look.marker, markersize=3.5)
        axis.fill_between(at, line["low"], line["high"], color=look.color, alpha=0.1, linewidth=0)
    # Two seeds give intervals of a hundred times their spread: the means, not these, set the axis.
    centre = np.concatenate([rows["score"], rows["base"]])
    reach = max(1.2 * np.ptp(centre), 1e-9)
    low = np.nanmin([*centre, *rows["low"].clip(lower=centre.min() - reach)])
    high = np.nanmax([*centre, *rows["high"].clip(upper=centre.max() + reach)])
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    axis.set_ylim(low - pad, high + pad)
    log_axis(
        axis, rows.loc[rows["images_seen"] > 0, "images_seen"] if x == "images_seen" else _decades(first, last), zero
    )
    marked, right = set(), last * 1.25
    for row in records(rows.drop_duplicates("method")):
        length = lengths.get((row["backbone"], row["domain"], row["method"], row["n"]))
        if length is None or length > BEYOND * last:
            continue
        marked.add(row["method"])
        right = max(right, length * 1.15)
        where, color = axis.get_xaxis_transform(), style_of(row["method"]).color
        axis.plot(length, 0.0, "^", color=color, transform=where, clip_on=False, zorder=5)
    axis.set_xlim(zero / 1.2, right)
    return marked


def _decades(first: float, last: float) -> list[float]:
    """Return the numbers 1, 3, 10, 30, … from `first` to `last`."""
    numbers = [base * 10.0**power for power in range(-3, 9) for base in (1, 3)]
    return [number for number in numbers if 0.9 * first <= number <= 1.1 * last]


def _devices(files: StudyFiles, curve: pd.DataFrame) -> str:
    """Return what the seconds of the drawn cells are of: `one CPU core, `; with the domains, where these differ."""
    found: dict[str, set[str]] = {}
    for cell in set(curve[CELL].itertuples(index=False, name=None)) & set(files.devices):
        found.setdefault(files.devices[cell], set()).add(domain_label(cell[1]))
    if len(found) < 2:
        return "".join(f"{device}, " for device in found)
    return "".join(f"{device} ({', '.join(sorted(domains))}), " for device, domains in sorted(found.items()))


def _caption(files: StudyFiles, curve: pd.DataFrame, lengths: dict[Cell, float], x: str) -> str:
    sizes = {(row["domain"], int(row["n"])) for row in records(curve[["domain", "n"]].drop_duplicates())}
    words = ", ".join(f"{domain_label(domain)} {n}" for domain, n in sorted(sizes))
    trained = files.main[files.main["n"] > 0]
    cost = "images seen" if x == "images_seen" else f"seconds of training ({_devices(files, curve)}wall time)"
    text = (
        f"**Score on the test split against {cost}**, one line per method (logarithmic axis; the left end is step 0, "
        "for a method that normalises by the domain the base normalised so; dashed: the untouched backbone; ↓: lower "
        "is better). "
        f"n of each domain: {words}; means over {seeds_text(trained)}. "
    )
    known = curve["ci_low"].notna().any()
    text += (
        "Bands: 95 % interval of the gain over base, laid around the mean; cut off where they are far wider "
        f"than the curves. {covers_text(curve)} {SEEDS_ALONE * bool((curve['interval_covers'] == 'seeds').any())}"
        if known
        else "One seed: no confidence interval can be given and none is drawn. "
    )
    if (curve["metric"] == OWN_BANK).any():
        text += "Bank kNN: the bank is the n drawn images with their labels; dashed: the run's own start. "
    if _silent(files, curve):
        text += f"{IDLE}: {ACTED_NOT} "
    if lengths:
        known_lengths = {
            method: f"{style_of(method).label} {compact(length)}" for (_, _, method, _), length in lengths.items()
        }
        text += (
            "Triangles on the axis: how many images the method's own source trains on, where that is in reach ("
            f"{', '.join(known_lengths[method] for method in ordered(known_lengths))})."
        )
    return text
