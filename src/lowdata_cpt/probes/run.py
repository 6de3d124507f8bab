"""Run one probe on cached features and write its scores. Only the dense probes import torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import write_array, write_json
from lowdata_cpt.core.strict import Strict
from lowdata_cpt.data.store import Store
from lowdata_cpt.probes import linear
from lowdata_cpt.probes.config import DepthConfig, LinearConfig, SegmentationConfig

if TYPE_CHECKING:
    import torch

CONFIGS: dict[str, type[Strict]] = {"linear": LinearConfig, "segmentation": SegmentationConfig, "depth": DepthConfig}


def run_probe(
    task: str,
    features: Path,
    store: Store,
    config: LinearConfig | SegmentationConfig | DepthConfig,
    *,
    seed: int,
    device: torch.device | str | None,
    out: Path,
    examples: int,
) -> dict[str, Any]:
    """Run probe `task` and write `out` (JSON); dense probes also write `out` with suffix .npy.

    The .npy holds the first `examples` test predictions: class maps uint8 [M, H, W], or depth float32 [M, H, W] in
    metres. Probe "linear" reads the store's task "classification"; it uses neither `seed` nor `device`.

    Returns:
        What was written: task, seed, metrics (val, test), selected, counts.

    Raises:
        UserError: no such probe, the domain lacks its labels, or the features are not of this store.
    """
    expected = CONFIGS.get(task)
    if expected is None or not isinstance(config, expected):
        raise UserError(
            f"probe {task!r} with {type(config).__name__}: expected one of {list(CONFIGS)} and its settings"
        )
    if isinstance(config, LinearConfig):
        result = linear.probe(features, store, config, examples)
    else:
        result, predicted = _dense(features, store, config, seed, device)
        write_array(out.with_suffix(".npy"), predicted[:examples])
    result = {"task": task, "seed": seed, **result}
    write_json(out, result)
    return result


def _dense(
    features: Path,
    store: Store,
    config: SegmentationConfig | DepthConfig,
    seed: int,
    device: torch.device | str | None,
) -> tuple[dict[str, Any], NDArray[Any]]:
    """Run a dense probe; torch is imported here so that the linear probe starts without it."""
    import torch

    from lowdata_cpt.probes import depth, segmentation

    where = torch.device(device or "cpu")
    if isinstance(config, SegmentationConfig):
        return segmentation.probe(features, store, config, seed=seed, device=where)
    return depth.probe(features, store, config, seed=seed, device=where)
