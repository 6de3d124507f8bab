"""Depth probe: linear head with batch norm on patch tokens, softplus, squared error; RMSE, AbsRel, δ1.

Torch is imported when the probe runs, so that its settings are read without it.
"""

from __future__ import annotations

import math
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

TASK: Task = "depth"
METRICS = (
    Metric("rmse", TASK, "Depth RMSE", "RMSE", higher=False, bounded=False, relative=True, unit="m"),
    Metric("abs_rel", TASK, "Depth AbsRel", "AbsRel", higher=False, bounded=False, relative=True),
    Metric("delta1", TASK, "Depth δ1", "δ1"),
)


class Config(DenseConfig):
    """Depth probe: squared error in metres; the learning rate with the lowest validation RMSE is taken."""


def squared_error(maps: Tensor, labels: Tensor, depth_range: tuple[float, float]) -> Tensor:
    """Return each candidate's mean squared error [L] in m² of raw outputs [B, h, w, L, 1] over valid pixels."""
    import torch.nn.functional as F

    valid = ((labels >= depth_range[0]) & (labels <= depth_range[1])).unsqueeze(-1)
    # Invalid labels may be NaN, which would survive a mask put on the error alone in its gradient. `torch.where` would
    # copy its 0.0 to the device, and wait.
    error = F.softplus(maps.squeeze(-1)) - labels.unsqueeze(-1).masked_fill(~valid, 0.0)
    return error.masked_fill(~valid, 0.0).square().sum((0, 1, 2)) / valid.sum().clamp_min(1)


class Depth:
    """What depth is to a dense probe (see `dense.DenseTask`)."""

    name, metric, higher, outputs = TASK, "rmse", False, 1

    def __init__(self, store: Store) -> None:
        from lowdata_cpt.probes.metrics import valid_depth

        self.store, self.info, self.valid = store, store.task(TASK), valid_depth

    def labels(self, name: str, *, counted: bool) -> NDArray[np.float32]:
        """Return depth maps [M, H, W] in metres of a set; `counted`: only the evaluation crop counts.

        Raises:
            UserError: no pixel has a depth that counts.
        """
        truth = np.array(self.store.depth(name))
        if not self.valid(truth, self.info, crop=counted).any():
            raise UserError(f"{self.store.root}: depth set {name!r} has no pixel within {self.info.depth_range} m")
        return truth

    def bias(self, train: NDArray[np.float32]) -> float:
        """Return where a head's outputs start: softplus of it is the mean of the train set's valid depths."""
        mean = float(train[self.valid(train, self.info, crop=False)].mean(dtype=np.float64))
        return mean + math.log(-math.expm1(-mean))

    def loss(self, maps: Tensor, labels: Tensor) -> Tensor:
        """Return each candidate's loss [L]."""
        return squared_error(maps, labels, self.info.depth_range)

    def predicted(self, maps: Tensor) -> NDArray[np.float32]:
        """Return depths [B, H, W] in metres of raw outputs [B, H, W, 1], clamped to `depth_range`."""
        import torch.nn.functional as F

        depths: NDArray[np.float32] = F.softplus(maps[..., 0]).clamp(*self.info.depth_range).cpu().numpy()
        return depths

    def outcomes(self, truth: NDArray[np.float32], predicted: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return RMSE, AbsRel and δ1 of each image [M, 3]."""
        from lowdata_cpt.probes.metrics import depth_errors

        return depth_errors(truth, predicted, self.info)

    def pool(self, outcomes: list[NDArray[np.float64]]) -> dict[str, NDArray[Any]]:
        """Pool the outcomes of heads from several seeds: errors are averaged."""
        return {"errors": np.stack(outcomes).mean(axis=0)}

    def metrics(self, pooled: dict[str, NDArray[Any]]) -> dict[str, float]:
        """Return the metrics of pooled outcomes."""
        from lowdata_cpt.probes.metrics import depth_metrics

        return depth_metrics(pooled["errors"])

    def counts(self, test: NDArray[np.float32]) -> dict[str, int]:
        """Return facts of the test set for evaluation.json."""
        return {"test_pixels": int(self.valid(test, self.info, crop=True).sum())}


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
    """Run the probe (see `dense.run`); `outcomes`: errors [M, 3] per image; `drawn` is not used."""
    from lowdata_cpt.probes import dense

    return dense.run(Depth(store), features, config, seed=seed, device=device, examples=examples)
