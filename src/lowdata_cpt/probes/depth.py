"""Depth probe: linear head with batch norm on patch tokens, softplus, squared error; RMSE, AbsRel, δ1."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.store import Split, Store, TaskInfo
from lowdata_cpt.probes import dense, feature_file
from lowdata_cpt.probes.config import DepthConfig
from lowdata_cpt.probes.metrics import DepthErrors, depth_errors, depth_metrics, valid_depth

Maps = NDArray[np.float32]


def load(features: Path, store: Store, info: TaskInfo, split: Split) -> tuple[NDArray[np.float16], Maps]:
    """Return patches [M, h, w, D] and depth maps [M, H, W] in metres of a split.

    Raises:
        UserError: the features do not fit the store, or no pixel has a depth that counts.
    """
    name = info.sets[split]
    patches, truth = feature_file.read(features, store, name, "patches"), np.array(store.depth(name))
    if not valid_depth(truth, info, crop=split != "train").any():
        raise UserError(f"{store.root}: depth set {name!r} has no pixel within {info.depth_range} m")
    return patches, truth


def squared_error(maps: Tensor, labels: Tensor, depth_range: tuple[float, float]) -> Tensor:
    """Return each candidate's mean squared error [L] in m² of raw outputs [B, h, w, L, 1] over valid pixels."""
    valid = ((labels >= depth_range[0]) & (labels <= depth_range[1])).unsqueeze(-1)
    # Invalid labels may be NaN, which would survive a mask put on the error alone in its gradient.
    error = F.softplus(maps.squeeze(-1)) - torch.where(valid, labels.unsqueeze(-1), 0.0)
    return torch.where(valid, error, 0.0).square().sum((0, 1, 2)) / valid.sum().clamp_min(1)


def evaluate(
    heads: dense.Heads, patches: NDArray[np.float16], truth: Maps, info: TaskInfo, candidate: int, device: torch.device
) -> tuple[dict[str, float], Maps]:
    """Return metrics at the labels' full resolution and depths [M, H, W] in metres, clamped to `depth_range`."""
    errors: list[DepthErrors] = []
    predicted = np.empty_like(truth)
    for part, maps in dense.predict(heads, patches, truth.shape[1:], candidate, device):
        predicted[part] = F.softplus(maps[..., 0]).clamp(*info.depth_range).cpu().numpy()
        errors += depth_errors(truth[part], predicted[part], info)
    return depth_metrics(errors), predicted


def probe(
    features: Path, store: Store, config: DepthConfig, *, seed: int, device: torch.device
) -> tuple[dict[str, Any], Maps]:
    """Run the probe; heads start at the train set's mean depth, the test split is read once, after selection.

    Returns:
        metrics (val, test), selected, counts; predicted depths of the test images, float32 [M, H, W] in metres.
    """
    info = store.task("depth")
    patches, truth = load(features, store, info, "train")
    val_patches, val_truth = load(features, store, info, "val")
    mean = float(truth[valid_depth(truth, info, crop=False)].mean(dtype=np.float64))
    heads = dense.train_heads(
        patches,
        truth,
        1,
        lambda maps, labels: squared_error(maps, labels, info.depth_range),
        config,
        bias=mean + math.log(-math.expm1(-mean)),
        seed=seed,
        device=device,
    )
    val = [evaluate(heads, val_patches, val_truth, info, i, device)[0] for i in range(len(config.lr_grid))]
    best = int(np.argmin([m["rmse"] for m in val]))
    test_patches, test_truth = load(features, store, info, "test")
    test, predicted = evaluate(heads, test_patches, test_truth, info, best, device)
    return {
        "metrics": {"val": val[best], "test": test},
        "selected": {
            "lr": config.lr_grid[best],
            "val_rmse": {repr(lr): m["rmse"] for lr, m in zip(config.lr_grid, val, strict=True)},
        },
        "counts": {
            "train": len(truth),
            "val": len(val_truth),
            "test": len(test_truth),
            "test_pixels": int(valid_depth(test_truth, info, crop=True).sum()),
        },
    }, predicted
