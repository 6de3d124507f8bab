"""Qualitative sheets: image, truth, and the base's and each method's prediction, for segmentation and depth."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from lowdata_cpt.analysis.figures import EXAMPLES
from lowdata_cpt.analysis.study_files import StudyFiles
from lowdata_cpt.analysis.style import INK, Drawing, domain_label, is_variant, nothing, ordered, short_label, style_of
from lowdata_cpt.analysis.table import UNTRAINED
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_arrays

ROWS = 4
TILE = 0.95  # inches: 190 pixels at the saved resolution
LEGEND_CLASSES = 24
# Distinct under the common colour-vision deficiencies (Paul Tol's muted scheme); further classes follow by hue.
CLASS_COLORS = ("#DDCC77", "#332288", "#CC6677", "#44AA99", "#AA4499", "#88CCEE", "#117733", "#882255", "#999933")
UNLABELLED = (1.0, 1.0, 1.0)
Arrays = dict[str, NDArray[Any]]


def read_qualitative(path: Path) -> Arrays:
    """Read one `.npz` of example predictions.

    Raises:
        UserError: the file is unreadable, has no `image` [K,H,W,3] uint8, or an array's [K,H,W] differs from it.
    """
    arrays = read_arrays(path)
    image = arrays.get("image")
    if image is None or image.ndim != 4 or image.shape[-1] != 3 or image.dtype != np.uint8:
        raise UserError(f"{path}: expected an array image [K,H,W,3] of uint8")
    for name, array in arrays.items():
        maps = name.startswith(("segmentation_", "depth_")) and name not in (
            "segmentation_classes",
            "segmentation_ignore",
        )
        if maps and array.shape != image.shape[:3]:
            raise UserError(f"{path}: {name} has shape {array.shape}, expected {image.shape[:3]}")
    return arrays


def draw_segmentation(files: StudyFiles, backbone: str, domain: str) -> Drawing:
    """Draw image, true classes, and what a linear head on each backbone predicts.

    Raises:
        UserError: as `read_qualitative`.
    """
    return _sheet(files, backbone, domain, "segmentation")


def draw_depth(files: StudyFiles, backbone: str, domain: str) -> Drawing:
    """Draw image, true depth, and what a linear head on each backbone predicts.

    Raises:
        UserError: as `read_qualitative`.
    """
    return _sheet(files, backbone, domain, "depth")


def examples_of(files: StudyFiles, backbone: str, domain: str) -> Arrays:
    """Return the example predictions of a domain, as `read_qualitative`."""
    return read_qualitative(files.folder / EXAMPLES.format(backbone, domain))


def _sheet(files: StudyFiles, backbone: str, domain: str, task: str) -> Drawing:
    arrays = examples_of(files, backbone, domain)
    if f"{task}_truth" not in arrays:
        return nothing(f"There are no examples of {task} on {domain_label(domain)}.")
    known = {f"{task}_truth", "segmentation_classes", "segmentation_ignore"}
    names = [name.removeprefix(f"{task}_") for name in arrays if name.startswith(f"{task}_") and name not in known]
    left_out = set(UNTRAINED) - {"base"}
    methods = [name for name in ordered(names) if name not in left_out and not is_variant(name)]
    figure, source = (_segmentation if task == "segmentation" else _depth)(arrays, methods)
    return Drawing(figure, _caption(task, f"{domain_label(domain)}** ({backbone})", len(source), methods), source)


def _grid(arrays: Arrays, methods: list[str]) -> tuple[Figure, NDArray[Any]]:
    count = min(ROWS, len(arrays["image"]))
    height, width = arrays["image"].shape[1:3]
    columns = 2 + len(methods)
    figure = Figure(figsize=(TILE * columns, (TILE * height / width + 0.16) * count + 0.75), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.03, wspace=0, hspace=0)  # type: ignore[union-attr,call-arg]
    axes = figure.subplots(count, columns, squeeze=False)
    bare(axes.ravel())
    for column, title in enumerate(["Image", "Truth", *map(short_label, methods)]):
        color = INK if column < 2 else style_of(methods[column - 2]).color
        axes[0, column].set_title(title, fontsize=7, loc="center", color=color)
    return figure, axes


def bare(axes: Iterable[Axes]) -> None:
    """Take ticks, grid and frame from axes that show a picture."""
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(visible=False)
        axis.spines[:].set_visible(False)


def write_below(axis: Axes, text: str) -> None:
    """Write a small line below a picture."""
    axis.set_xlabel(text, fontsize=6.5, labelpad=2)


def class_palette(count: int) -> NDArray[np.float64]:
    """Return [count, 3] colours in [0, 1]: class 0 grey (usually background), the rest fixed by index."""
    colors = [(0.78, 0.78, 0.78)]
    colors += [tuple(int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)) for code in CLASS_COLORS]  # type: ignore[misc]
    for index in range(count - len(colors)):
        lightness = (0.42, 0.62, 0.75)[index % 3]
        colors.append(colorsys.hls_to_rgb((0.09 + 0.618034 * index) % 1, lightness, 0.6))
    return np.array(colors[:count])


def _segmentation(arrays: Arrays, methods: list[str]) -> tuple[Figure, pd.DataFrame]:
    truth = arrays["segmentation_truth"]
    names = [str(name) for name in arrays.get("segmentation_classes", np.array([], dtype=str))]
    ignore = int(arrays["segmentation_ignore"]) if "segmentation_ignore" in arrays else -1
    palette = class_palette(max(len(names), 1 + int(max(truth[truth != ignore].max(initial=0), 0))))
    lookup = np.tile(np.array(UNLABELLED), (256, 1))
    lookup[: len(palette)] = palette
    if 0 <= ignore < 256:
        lookup[ignore] = UNLABELLED
    figure, axes = _grid(arrays, methods)
    rows, seen = [], [truth[: len(axes)]]
    for k, line in enumerate(axes):
        valid = truth[k] != ignore
        line[0].imshow(arrays["image"][k], interpolation="lanczos")
        line[1].imshow(lookup[truth[k]], interpolation="nearest")
        for axis, method in zip(line[2:], methods, strict=True):
            guess = arrays[f"segmentation_{method}"][k]
            right = float((guess == truth[k])[valid].mean()) if valid.any() else float("nan")
            axis.imshow(lookup[guess], interpolation="nearest")
            seen.append(guess[None])
            write_below(axis, f"{100 * right:.0f} % right")
            rows.append({"image": k, "method": method, "pixel_accuracy": right})
    shown = np.concatenate(seen)
    labels, areas = np.unique(shown[shown != ignore], return_counts=True)
    largest = sorted(labels[np.argsort(-areas, kind="stable")][:LEGEND_CLASSES].tolist())
    handles = [Patch(color=palette[i], label=names[i] if i < len(names) else f"class {i}") for i in largest]
    if 0 <= ignore < 256 and (truth[: len(axes)] == ignore).any():
        handles.append(Patch(facecolor="white", edgecolor=INK, linewidth=0.5, label="not scored"))
    figure.legend(handles=handles, loc="outside lower center", ncols=8, fontsize=6.5, handlelength=1, columnspacing=1)
    return figure, pd.DataFrame(rows, columns=["image", "method", "pixel_accuracy"])


def _depth(arrays: Arrays, methods: list[str]) -> tuple[Figure, pd.DataFrame]:
    truth = arrays["depth_truth"].astype(float)
    valid = np.isfinite(truth) & (truth > 0)
    shown = truth[: min(ROWS, len(truth))][valid[: min(ROWS, len(truth))]]
    low, high = np.quantile(shown, [0.01, 0.99]) if shown.size else (0.0, 1.0)
    figure, axes = _grid(arrays, methods)
    rows = []
    image = None
    for k, line in enumerate(axes):
        line[0].imshow(arrays["image"][k], interpolation="lanczos")
        line[1].set_facecolor("#dddddd")
        image = line[1].imshow(np.ma.masked_array(truth[k], ~valid[k]), cmap="cividis_r", vmin=low, vmax=high)
        for axis, method in zip(line[2:], methods, strict=True):
            guess = arrays[f"depth_{method}"][k].astype(float)
            off = np.abs(guess - truth[k])[valid[k]] / truth[k][valid[k]]
            axis.imshow(guess, cmap="cividis_r", vmin=low, vmax=high)
            write_below(axis, f"AbsRel {off.mean():.2f}" if off.size else "no truth")
            rows.append({"image": k, "method": method, "abs_rel": off.mean() if off.size else np.nan})
    if image is not None:
        bar = figure.colorbar(image, ax=axes, orientation="horizontal", shrink=0.35, aspect=35, pad=0.02)
        bar.set_label("depth (m)", fontsize=6.5)
        bar.ax.tick_params(labelsize=6.5)
    return figure, pd.DataFrame(rows, columns=["image", "method", "abs_rel"])


def _caption(task: str, place: str, tiles: int, methods: list[str]) -> str:
    count = tiles // max(len(methods), 1)
    measure = "share of scored pixels that are right" if task == "segmentation" else "mean absolute relative error"
    extra = "White pixels are not scored."
    if task == "depth":
        extra = "Grey pixels have no true depth; one colour scale."
    return (
        f"**{task.capitalize()} on {place}: image, truth, and what a linear head "
        f"predicts from each frozen backbone. {count} fixed test images, one seed, so no confidence interval; below "
        f"each tile the {measure} of that image. {extra} Examples illustrate, the tables decide."
    )
