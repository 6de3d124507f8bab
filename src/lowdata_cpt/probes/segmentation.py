"""Segmentation probe: linear head with batch norm on patch tokens, cross-entropy, mIoU and pixel accuracy.

Torch is imported when the probe runs, so that its settings are read without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.store import Store, Task
from lowdata_cpt.probes.config import DenseConfig
from lowdata_cpt.probes.result import FeatureSet, Metric, ProbeResult

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TASK: Task = "segmentation"
METRICS = (
    Metric("miou", TASK, "Segmentation mIoU", "mIoU"),
    Metric("pixel_accuracy", TASK, "Pixel accuracy", "pixel acc."),
)


class Config(DenseConfig):
    """Segmentation probe: cross-entropy; the learning rate with the best validation mIoU is taken."""


def cross_entropy(maps: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Return each candidate's mean cross-entropy [L] of logits [B, h, w, L, C] over labelled pixels [B, h, w]."""
    import torch.nn.functional as F

    candidates, classes = maps.shape[-2:]
    target = labels.flatten().long()
    each = F.cross_entropy(
        maps.reshape(-1, classes), target.repeat_interleave(candidates), ignore_index=ignore_index, reduction="none"
    )
    return each.view(-1, candidates).sum(0) / (target != ignore_index).sum().clamp_min(1)


class Segmentation:
    """What segmentation is to a dense probe (see `dense.DenseTask`)."""

    name, metric, higher = TASK, "miou", True

    def __init__(self, store: Store) -> None:
        self.store, self.info = store, store.task(TASK)
        self.outputs = len(self.info.classes)

    def labels(self, name: str, *, counted: bool) -> NDArray[np.uint8]:
        """Return class maps [M, H, W] of a set.

        Raises:
            UserError: a label is neither a class nor `ignore_index`, or none counts.
        """
        truth = np.array(self.store.segmentation(name))
        found = np.unique(truth)
        beyond = np.setdiff1d(found, [*range(self.outputs), self.info.ignore_index])
        if len(beyond):
            raise UserError(
                f"{self.store.root}: segmentation set {name!r} has label {beyond[0]}; expected 0 to {self.outputs - 1} "
                f"or {self.info.ignore_index}"
            )
        if not np.setdiff1d(found, [self.info.ignore_index]).size:
            raise UserError(f"{self.store.root}: segmentation set {name!r} is void everywhere: nothing can be scored")
        return truth

    def bias(self, train: NDArray[np.uint8]) -> float:
        """Return where a head's outputs start."""
        return 0.0

    def loss(self, maps: Tensor, labels: Tensor) -> Tensor:
        """Return each candidate's loss [L]."""
        return cross_entropy(maps, labels, self.info.ignore_index)

    def predicted(self, maps: Tensor) -> NDArray[np.uint8]:
        """Return class maps [B, H, W] of logits [B, H, W, C]."""
        import torch

        classes: NDArray[np.uint8] = maps.max(-1).indices.to(torch.uint8).cpu().numpy()
        return classes

    def outcomes(self, truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Return counts [M, C, 3] (see `metrics.segmentation_counts`)."""
        from lowdata_cpt.probes.metrics import segmentation_counts

        return segmentation_counts(truth, predicted, self.outputs, self.info.ignore_index)

    def pool(self, outcomes: list[NDArray[np.int32]]) -> dict[str, NDArray[Any]]:
        """Pool the outcomes of heads from several seeds: counts add up."""
        return {"counts": np.stack(outcomes).sum(axis=0, dtype=np.int32)}

    def metrics(self, pooled: dict[str, NDArray[Any]]) -> dict[str, float]:
        """Return the metrics of pooled outcomes."""
        from lowdata_cpt.probes.metrics import segmentation_metrics

        return segmentation_metrics(pooled["counts"])

    def counts(self, test: NDArray[np.uint8]) -> dict[str, int]:
        """Return facts of the test set for evaluation.json."""
        return {"classes": self.outputs, "test_pixels": int((test != self.info.ignore_index).sum())}


def run(
    features: FeatureSet,
    store: Store,
    config: Config,
    *,
    seed: int,
    device: torch.device,
    examples: int,
    drawn: frozenset[str] = frozenset(),
) -> ProbeResult:
    """Run the probe (see `dense.run`); `outcomes`: counts int32 [M, C, 3]; `drawn` is not used."""
    from lowdata_cpt.probes import dense

    return dense.run(Segmentation(store), features, config, seed=seed, device=device, examples=examples)
