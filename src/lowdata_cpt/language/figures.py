"""The figures of a language study: learning with its guard, the soft targets over time, V and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from lowdata_cpt.analysis.figures.axes import compact
from lowdata_cpt.analysis.style import PAGE_WIDTH, Drawing, house_style, nothing, panels, save
from lowdata_cpt.core.provenance import write_sidecar
from lowdata_cpt.language.config import BASE
from lowdata_cpt.language.results import LABELS, METRICS, SHOWN, claims, read_table, statistics, within_seed

LOOK = {
    BASE: ("#222222", "o", "-"),
    "next_token": ("#767676", "o", "--"),
    "uniform_topk": ("#E69F00", "s", ":"),
    "self_distillation": ("#56B4E9", "^", ":"),
    "random_feedback": ("#CC79A7", "v", ":"),
    "v_pretraining_text": ("#D55E00", "D", "-"),
}
"""Okabe and Ito's palette; the plain control is grey, the other controls are dotted."""


def _line(axis: Axes, arm: str, part: pd.DataFrame, column: str, marked: bool) -> None:
    """Draw the mean over seeds with the range of seeds."""
    color, marker, line = LOOK[arm]
    found = part.groupby("tokens_seen")[column].agg(["mean", "min", "max"]).dropna()
    axis.plot(found.index, found["mean"], line, color=color, marker=marker if marked else "", label=LABELS[arm])
    axis.fill_between(found.index, found["min"], found["max"], color=color, alpha=0.15, linewidth=0)
    axis.xaxis.set_major_formatter(lambda x, _: compact(x) if x else "0")
    axis.set_xlabel("tokens seen")


def learning(folder: Path) -> Drawing:
    """Draw each metric of `SHOWN` against tokens seen, an arm a line."""
    scores = read_table(folder / "scores.csv")
    learners = list(dict.fromkeys(scores["learner"]))
    figure, axes = panels(len(SHOWN) * len(learners), len(SHOWN), PAGE_WIDTH, 2.2)
    places = [(learner, metric) for learner in learners for metric in SHOWN]
    for axis, (learner, metric) in zip(axes, places, strict=True):
        part = scores[(scores["learner"] == learner) & (scores["metric"] == metric)]
        start = part[part["arm"] == BASE]
        for arm in [name for name in LOOK if name in set(part["arm"]) and name != BASE]:
            own = part[part["arm"] == arm]
            begins = [start.assign(seed=seed) for seed in sorted(set(own["seed"]))]
            _line(axis, arm, pd.concat([*begins, own]), "value", True)
        axis.set_title(METRICS[metric] if len(learners) == 1 else f"{learner}: {METRICS[metric]}")
    axes[0].legend(fontsize=6)
    text = (
        "Held-out problems of the target kind (greedy Pass@1, share of the solutions' tokens that are predicted right) "
        "and of held-out prose's (the guard for general ability) against tokens seen; mean over seeds, band: range of "
        "seeds. Higher is better."
    )
    return Drawing(figure, text, scores)


def targets(folder: Path) -> Drawing:
    """Draw α and the entropy of q over time."""
    curves = read_table(folder / "curves.csv")
    curves = curves[curves["alpha"].notna()]
    if curves.empty:
        return nothing("no arm of this study has soft targets")
    figure, axes = panels(2, 2, PAGE_WIDTH, 2.2)
    for axis, column, title in zip(axes, ("alpha", "entropy"), ("α", "entropy of q (nats)"), strict=True):
        for arm in [name for name in LOOK if name in set(curves["arm"])]:
            _line(axis, arm, curves[curves["arm"] == arm], column, False)
        axis.set_title(title)
    axes[0].legend(fontsize=6)
    return Drawing(figure, "Share α that leaves the true token, and entropy of the target q, mean over a batch's "
                   "answer tokens; mean over seeds, band: range of seeds.", curves)  # fmt: skip


def value(folder: Path) -> Drawing:
    """Draw V against the fall of the feedback's loss over the step that followed."""
    values = read_table(folder / "value.csv").dropna(subset=["predicted", "realised"])
    if values.empty:
        return nothing("no arm of this study has a taught designer")
    arms = [name for name in LOOK if name in set(values["arm"])]
    figure, axes = panels(len(arms), 2, PAGE_WIDTH, 2.4)
    for axis, arm in zip(axes, arms, strict=True):
        part = values[values["arm"] == arm]
        axis.scatter(part["predicted"], part["realised"], s=4, color=LOOK[arm][0], alpha=0.4, linewidths=0)
        axis.axhline(0, color="#767676", linewidth=0.6)
        axis.axvline(0, color="#767676", linewidth=0.6)
        r, of_ranks = within_seed(part), within_seed(part, ranks=True)
        axis.set_title(f"{LABELS[arm]}: r = {r:.2f}, of ranks {of_ranks:.2f}, n = {len(part)}")
        axis.set_xlabel("predicted: rate · V (nats)")
        axis.set_ylabel("realised fall of L_down (nats)")
    return Drawing(figure, "Fall of the feedback's loss to first order, learning rate · V of the targets that θ got, "
                   "and the fall of the same batch's loss over the learner's own step that followed. r: Pearson's "
                   "within each seed, both divided by the rate of the step; mean over seeds.", values)  # fmt: skip


FIGURES: dict[str, tuple[Callable[[Path], Drawing], str]] = {
    "learning": (learning, "scores.csv"),
    "targets": (targets, "curves.csv"),
    "value": (value, "value.csv"),
}
"""Name -> what draws it, and the table that it reads."""


def draw(folder: Path) -> None:
    """Draw every figure into `figures/`, with caption and source table."""
    with house_style():
        for name, (make, reads) in FIGURES.items():
            picture = save(make(folder), folder / "figures", name)[0]
            write_sidecar(picture, inputs=[folder / reads])


def report(folder: Path) -> None:
    """Write intervals, verdicts and figures of a study's folder from its tables."""
    statistics(folder)
    claims(folder)
    draw(folder)
