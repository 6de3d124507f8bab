"""Looks inside: V-pretraining's masks over time, what its value predicts, GLARE's regions, nearest neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy import stats

from lowdata_cpt.analysis.figures import DIAGNOSTICS
from lowdata_cpt.analysis.figures.qualitative import ROWS, Arrays, bare, examples_of, write_below
from lowdata_cpt.analysis.study_files import StudyFiles
from lowdata_cpt.analysis.style import INK, PAGE_WIDTH, Drawing, domain_label, nothing, panels, short_label, style_of
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_arrays

NEIGHBOURS_OF = ("base", "diet_cp")
RIGHT, WRONG = "#0072B2", "#D55E00"
PAPER_R = 0.66
ARM_LABELS = {
    "sgd last_blocks": "SGD step on S",
    "adamw last_blocks": "AdamW step on S",
    "sgd all": "SGD step on all weights",
    "adamw all": "AdamW step on all weights",
}


def read_diagnostics(files: StudyFiles, backbone: str, domain: str, method: str) -> Arrays:
    """Read what a method shows of its inside on a domain.

    Raises:
        UserError: the file is unreadable or has no `image` and `step`.
    """
    path = files.folder / DIAGNOSTICS.format(backbone, domain, method)
    arrays = read_arrays(path)
    if not {"image", "step"} <= arrays.keys():
        raise UserError(f"{path}: expected the arrays image and step, found {sorted(arrays)}")
    return arrays


def _where(backbone: str, domain: str) -> str:
    return f"on {domain_label(domain)} ({backbone}; one cell, smallest n, one seed, so no confidence interval)"


def _tiles(rows: int, columns: int, titles: list[str]) -> tuple[Any, NDArray[Any]]:
    tile = 1.05  # inches: 210 pixels at the saved resolution
    figure, axes = panels(rows * columns, columns, tile * columns + 0.1, tile + 0.08)
    grid = np.array(axes, dtype=object).reshape(rows, columns)
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.02, wspace=0, hspace=0)  # type: ignore[union-attr,call-arg]
    bare(axes)
    for axis, title in zip(grid[0], titles, strict=True):
        axis.set_title(title, fontsize=7, loc="center", fontweight="normal")
    return figure, grid


def draw_masks(files: StudyFiles, backbone: str, domain: str, method: str) -> Drawing:
    """Draw V-pretraining's masks at some steps.

    Raises:
        UserError: as `read_diagnostics`.
    """
    arrays = read_diagnostics(files, backbone, domain, method)
    mask, steps = arrays["mask"].astype(float), [int(step) for step in arrays["step"]]
    count = min(ROWS, len(arrays["image"]))
    figure, grid = _tiles(count, 1 + len(steps), ["Image", *[f"step {step}" for step in steps]])
    rows = []
    for k, line in enumerate(grid):
        line[0].imshow(arrays["image"][k])
        for axis, moment, step in zip(line[1:], mask, steps, strict=True):
            axis.imshow(moment[k], cmap="cividis", vmin=0, vmax=1)
            write_below(axis, f"mean {moment[k].mean():.2f}")
            rows.append({"image": k, "step": step, "mean": moment[k].mean(), "sd": moment[k].std()})
    caption = (
        f"**V-pretraining's masks over training** {_where(backbone, domain)}. Yellow stays sharp "
        f"(μ = 1), blue is blurred (μ = 0); {count} images of the subset, at the steps named above; below each mask "
        "its mean, which the regulariser draws to the keep ratio."
    )
    return Drawing(figure, caption, pd.DataFrame(rows))


def draw_value(files: StudyFiles, backbone: str, domain: str, method: str) -> Drawing:
    """Draw the fall of the downstream loss that V-pretraining's value predicts against the one that comes about.

    Raises:
        UserError: as `read_diagnostics`.
    """
    arrays = read_diagnostics(files, backbone, domain, method)
    arms = [str(arm) for arm in arrays["arms"]]
    figure, axes = panels(len(arms), min(4, len(arms)), PAGE_WIDTH, 2.0)
    found_r = []
    for axis, arm, predicted, realised in zip(axes, arms, arrays["predicted"], arrays["realised"], strict=True):
        kind, _, rate = arm.rpartition(" ")
        found = stats.pearsonr(predicted, realised)
        low, high = found.confidence_interval(0.95)
        pairs = pd.DataFrame({"step": kind, "lr": rate, "predicted": predicted, "realised": realised})
        sns.regplot(
            pairs,
            x="predicted",
            y="realised",
            ax=axis,
            seed=0,
            color=style_of("v_pretraining").color,
            scatter_kws={"s": 9},
            line_kws={"linewidth": 1},
        )
        axis.set_ylabel("")
        axis.axhline(0, color=INK, linewidth=0.6)
        axis.axvline(0, color=INK, linewidth=0.6)
        axis.ticklabel_format(style="sci", scilimits=(0, 0))
        title = ARM_LABELS[kind].replace(" on ", "\non ")
        axis.set_title(f"{title}\nr = {found.statistic:.2f} [{low:.2f}, {high:.2f}]", fontsize=7)
        axis.set_xlabel("predicted fall, lr · V", loc="left")
        line = {"step": ARM_LABELS[kind], "rate": rate, "n": len(predicted), "pearson_r": found.statistic}
        line |= {"ci_low": low, "ci_high": high, "mean_predicted": predicted.mean(), "mean_realised": realised.mean()}
        found_r.append(line | {"share_fallen": (realised > 0).mean()})
    axes[0].set_ylabel("realised fall of L_down")
    count = arrays["predicted"].shape[1]
    caption = (
        f"**Does the value predict one step?** O{_where(backbone, domain)[1:]}. Each point is one unlabelled and one "
        f"labelled meta batch (n = {count} real batches, the same for all panels); intervals of Pearson's r by "
        f"Fisher's z, bands of the line by bootstrap. V knows only S, the last blocks, to first order. "
        f"The paper prints r ≈ {PAPER_R}."
    )
    return Drawing(figure, caption, pd.DataFrame(found_r))


def draw_regions(files: StudyFiles, backbone: str, domain: str, method: str) -> Drawing:
    """Draw GLARE's regions and where the cross-attention finds them in the other view.

    Raises:
        UserError: as `read_diagnostics`.
    """
    arrays = read_diagnostics(files, backbone, domain, method)
    moments, last = (0, len(arrays["step"]) - 1), arrays["views"][-1]
    count = min(ROWS, last.shape[1])
    titles = ["View 1: region", "CLS attention", *[f"View 2: found,\nstep {arrays['step'][m]}" for m in moments]]
    figure, grid = _tiles(count, len(titles), titles)
    side = last.shape[2]
    rows = []
    for k, line in enumerate(grid):
        line[0].imshow(last[0, k])
        _outline(line[0], arrays["region"][-1, k], side)
        _heat(line[1], last[0, k], arrays["attention"][-1, k])
        for axis, moment in zip(line[2:], moments, strict=True):
            found = arrays["found"][moment, k].astype(float)
            _heat(axis, last[1, k], found)
            spread = float(-(found * np.log(np.maximum(found, 1e-12))).sum() / np.log(found.size))
            write_below(axis, f"entropy {spread:.2f}")
            rows.append({"image": k, "step": int(arrays["step"][moment]), "relative_entropy": spread})
    caption = (
        f"**GLARE's regions and their counterparts** {_where(backbone, domain)}. A region grown where the teacher "
        "attends (outline), the attention of its class token, and the weights of the cross-attention that looks the "
        f"region up in the other view, before and after training; {count} images, below each map its entropy as a "
        "share of the uniform map's."
    )
    return Drawing(figure, caption, pd.DataFrame(rows))


def _outline(axis: Axes, region: NDArray[Any], side: int) -> None:
    big = np.kron(region.astype(float), np.ones((side // len(region), side // len(region))))
    axis.contour(big, levels=[0.5], colors=[WRONG], linewidths=1.2)


def _heat(axis: Axes, image: NDArray[Any], weights: NDArray[Any]) -> None:
    height, width = image.shape[:2]
    axis.imshow(image.mean(-1), cmap="gray", vmin=0, vmax=255)
    axis.imshow(weights.astype(float), cmap="cividis", alpha=0.65, extent=(-0.5, width - 0.5, height - 0.5, -0.5))


def draw_neighbours(files: StudyFiles, backbone: str, domain: str) -> Drawing:
    """Draw the nearest train images of some test images by the base's and by DIET-CP's features, where both are there.

    Without labels, of some images their nearest others.

    Raises:
        UserError: as `read_qualitative`.
    """
    arrays = examples_of(files, backbone, domain)
    methods = [name for name in NEIGHBOURS_OF if f"neighbours_{name}" in arrays]
    if len(methods) < len(NEIGHBOURS_OF):
        return nothing("Neighbours are shown of base and DIET-CP; one of them was not run here.")
    near, labelled = arrays[f"neighbours_{methods[0]}"].shape[1], f"neighbours_{methods[0]}_same" in arrays
    count = min(ROWS, len(arrays["neighbours_query"]))
    titles = ["Query", *[f"{short_label(m)} {i + 1}" for m in methods for i in range(near)]]
    figure, grid = _tiles(count, len(titles), titles)
    rows = []
    for k, line in enumerate(grid):
        line[0].imshow(arrays["neighbours_query"][k], interpolation="lanczos")
        places = [(method, i) for method in methods for i in range(near)]
        for axis, (method, i) in zip(line[1:], places, strict=True):
            axis.imshow(arrays[f"neighbours_{method}"][k, i], interpolation="lanczos")
            same = bool(arrays[f"neighbours_{method}_same"][k, i]) if labelled else ""
            if labelled:
                axis.spines[:].set(visible=True, color=RIGHT if same else WRONG, linewidth=2)
            rows.append({"query": k, "method": method, "rank": i + 1, "same_class": same})
    source = pd.DataFrame(rows)
    if not labelled:
        caption = (
            f"**Nearest neighbours before and after DIET-CP** on {domain_label(domain)} ({backbone}), without labels: "
            f"{count} evenly spaced images and their {near} nearest others by cosine of the class token. Which are "
            "alike is for you to judge."
        )
        return Drawing(figure, caption, source)
    hits = {m: source.loc[source["method"] == m, "same_class"] for m in methods}
    words = ", ".join(f"{style_of(m).label} {sum(of)} of {len(of)}" for m, of in hits.items())
    caption = (
        f"**Nearest neighbours before and after DIET-CP** on {domain_label(domain)} ({backbone}): test images and "
        f"their {near} nearest labelled train images by cosine of the class token. Blue frame: the same class, "
        f"orange: another ({words}). {count} evenly spaced test images, largest n, one seed: too few to tell anything "
        "by; kNN accuracy on all test images is in the tables."
    )
    return Drawing(figure, caption, source)
