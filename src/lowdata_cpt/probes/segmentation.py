"""Segmentation probe: linear head with batch norm on patch tokens, cross-entropy, mIoU and pixel accuracy."""

from __future__ import annotations

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
from lowdata_cpt.probes.config import SegmentationConfig
from lowdata_cpt.probes.metrics import confusion, segmentation_metrics

Maps = NDArray[np.uint8]


def load(features: Path, store: Store, info: TaskInfo, split: Split) -> tuple[NDArray[np.float16], Maps]:
    """Return patches [M, h, w, D] and class maps [M, H, W] of a split.

    Raises:
        UserError: the features do not fit the store, or a label is neither a class nor `ignore_index`.
    """
    name = info.sets[split]
    patches, truth = feature_file.read(features, store, name, "patches"), np.array(store.segmentation(name))
    beyond = np.setdiff1d(np.unique(truth), [*range(len(info.classes)), info.ignore_index])
    if len(beyond):
        raise UserError(
            f"{store.root}: segmentation set {name!r} has label {beyond[0]}; expected 0 to {len(info.classes) - 1} "
            f"or {info.ignore_index}"
        )
    return patches, truth


def cross_entropy(maps: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Return each candidate's mean cross-entropy [L] of logits [B, h, w, L, C] over labelled pixels [B, h, w]."""
    candidates, classes = maps.shape[-2:]
    target = labels.flatten().long()
    each = F.cross_entropy(
        maps.reshape(-1, classes), target.repeat_interleave(candidates), ignore_index=ignore_index, reduction="none"
    )
    return each.view(-1, candidates).sum(0) / (target != ignore_index).sum().clamp_min(1)


def evaluate(
    heads: dense.Heads, patches: NDArray[np.float16], truth: Maps, info: TaskInfo, candidate: int, device: torch.device
) -> tuple[dict[str, float], Maps]:
    """Return metrics at the labels' full resolution and the predicted class maps [M, H, W] of one candidate."""
    classes = len(info.classes)
    counts, predicted = np.zeros((classes, classes), dtype=np.int64), np.empty_like(truth)
    for part, maps in dense.predict(heads, patches, truth.shape[1:], candidate, device):
        predicted[part] = maps.max(-1).indices.to(torch.uint8).cpu().numpy()
        counts += confusion(truth[part], predicted[part], classes, info.ignore_index)
    return segmentation_metrics(counts), predicted


def probe(
    features: Path, store: Store, config: SegmentationConfig, *, seed: int, device: torch.device
) -> tuple[dict[str, Any], Maps]:
    """Run the probe; the test split is read once, after the learning rate is chosen.

    Returns:
        metrics (val, test), selected, counts; predicted class maps of the test images, uint8 [M, H, W].
    """
    info = store.task("segmentation")
    patches, truth = load(features, store, info, "train")
    val_patches, val_truth = load(features, store, info, "val")
    heads = dense.train_heads(
        patches,
        truth,
        len(info.classes),
        lambda maps, labels: cross_entropy(maps, labels, info.ignore_index),
        config,
        bias=0.0,
        seed=seed,
        device=device,
    )
    val = [evaluate(heads, val_patches, val_truth, info, i, device)[0] for i in range(len(config.lr_grid))]
    best = int(np.argmax([m["miou"] for m in val]))
    test_patches, test_truth = load(features, store, info, "test")
    test, predicted = evaluate(heads, test_patches, test_truth, info, best, device)
    return {
        "metrics": {"val": val[best], "test": test},
        "selected": {
            "lr": config.lr_grid[best],
            "val_miou": {repr(lr): m["miou"] for lr, m in zip(config.lr_grid, val, strict=True)},
        },
        "counts": {
            "train": len(truth),
            "val": len(val_truth),
            "test": len(test_truth),
            "classes": len(info.classes),
            "test_pixels": int((test_truth != info.ignore_index).sum()),
        },
    }, predicted
