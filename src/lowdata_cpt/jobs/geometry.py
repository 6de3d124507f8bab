"""Images without labels: how the features of each model lie on them, and which images lie next to each other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from lowdata_cpt.analysis.figures import EXAMPLES
from lowdata_cpt.backbones import weights
from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.core.device import pick_device
from lowdata_cpt.core.io import read_json, write_arrays
from lowdata_cpt.core.stable import write_table
from lowdata_cpt.data.store import Store
from lowdata_cpt.jobs.collect import read_study
from lowdata_cpt.study.grid import pairs, shown_cells
from lowdata_cpt.study.paths import Paths
from lowdata_cpt.vision.images import resize, to_images

Features = NDArray[np.float64]
LOOKED_AT = 1000  # images of a pool: pairs grow with the square
BATCH = 32
QUERIES, NEAR = 4, 4


def uniformity(features: Features) -> float:
    """Return ln E exp(−2 ‖x − y‖²) over pairs of rows on the unit sphere (Wang & Isola 2020, eq. 2, t = 2).

    Args:
        features: [M, D], M ≥ 2; rows of any length other than 0.

    Returns:
        At most 0 (all in one point); the lower, the more evenly the rows lie on the sphere.
    """
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    squared = 2 - 2 * (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    return float(np.log(np.exp(-2 * squared).mean()))


def effective_rank(features: Features) -> float:
    """Return exp of the entropy of the singular values, as shares of their sum (Roy & Vetterli 2007, definition 1).

    Columns are centred first: else the mean, which all images share, is the largest direction.

    Args:
        features: [M, D].

    Returns:
        Between 1 (one direction) and min(M − 1, D); 0 where all rows are equal.
    """
    values = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)
    if values.sum() <= 1e-12 * max(1.0, float(np.abs(features).max())):
        return 0.0
    shares = values[values > 0] / values.sum()
    return math.exp(-float((shares * np.log(shares)).sum()))


def geometry(folder: Path) -> None:
    """Write geometry.csv and the neighbours of some images, for each place of a collected study without labels.

    Looked at are the untouched models and each method at its largest n, first seed, at the run's end, on the same
    images of the pool, at most `LOOKED_AT`, evenly spaced. Most of them were trained on: there is no other split.

    Args:
        folder: results/<study>, with its study.json, models and decoded images.

    Raises:
        UserError: a model or the decoded images are missing.
    """
    paths, where, rows = Paths(folder), pick_device("auto"), []
    study = read_study(folder / "study.json")
    for backbone, domain in pairs(study):
        store = Store.open(paths.manifest(domain))
        pool = store.images(store.meta.pool)
        taken = np.unique(np.linspace(0, len(pool) - 1, min(len(pool), LOOKED_AT)).astype(int))
        images = np.asarray(pool[taken])
        arrays: dict[str, NDArray[Any]] = {}
        queries = np.unique(np.linspace(0, len(images) - 1, QUERIES).astype(int))
        for cell in shown_cells(study, backbone, domain):
            end = read_json(paths.cell(cell.trained) / "cost.json")["images_seen"]
            export = paths.cell(cell.trained) / "export" / f"i{end}"
            features = _features(weights.open_export(export, study.backbones[backbone].image_size), images, where)
            found = {"uniformity": uniformity(features), "effective_rank": effective_rank(features)}
            place = {"backbone": backbone, "domain": domain, "method": cell.method, "n": cell.n, "images": len(images)}
            rows.append(place | {"width": features.shape[1]} | {name: f"{value:.4f}" for name, value in found.items()})
            arrays[f"neighbours_{cell.method}"] = images[_nearest(features, queries)]
        arrays["image"] = arrays["neighbours_query"] = images[queries]
        write_arrays(folder / EXAMPLES.format(backbone, domain), arrays)
    write_table(folder / "geometry.csv", pd.DataFrame(rows))


@torch.inference_mode()
def _features(vit: ViT, images: NDArray[np.uint8], device: torch.device) -> Features:
    """Return the class tokens of images uint8 [M, H, W, 3]: [M, D]."""
    vit.to(device)
    parts = [to_images(images[start : start + BATCH], device) for start in range(0, len(images), BATCH)]
    tokens = [vit(vit.normalise(resize(part, vit.image_size))).cls.double().cpu().numpy() for part in parts]
    return np.concatenate(tokens)


def _nearest(features: Features, queries: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows nearest to each query by cosine, itself left out: [Q, K]."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    likeness = unit[queries] @ unit.T
    likeness[np.arange(len(queries)), queries] = -np.inf
    return np.argsort(-likeness, axis=1, kind="stable")[:, : min(NEAR, len(features) - 1)]
