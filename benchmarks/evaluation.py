"""Evaluation of one checkpoint: one feature pass, against a backbone pass per probe and epoch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from tests.methods.harness import make_backbone

from benchmarks.harness import Case
from benchmarks.subjects import labelled_store
from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.data.store import Store
from lowdata_cpt.probes import dense
from lowdata_cpt.probes.evaluate import evaluate
from lowdata_cpt.probes.features import SharedBlocks, _forward
from lowdata_cpt.probes.registry import PROBES
from lowdata_cpt.probes.result import FeatureSet
from lowdata_cpt.vision.images import to_images

CPU = torch.device("cpu")
EPOCHS, BATCH = 10, 8


class Live:
    """Patch tokens [M, h, w, D] of a set that are computed anew whenever they are read, as the usual loop does."""

    device = CPU

    def __init__(self, backbone: ViT, images: np.ndarray) -> None:
        self.backbone, self.images = backbone, images
        self.shape = (len(images), backbone.grid(), backbone.grid(), backbone.width)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: Any) -> Any:
        _, patches = passed(self.backbone, self.images[np.asarray(place) if torch.is_tensor(place) else place])
        tokens = patches.half().view(-1, *self.shape[1:])
        return tokens if torch.is_tensor(place) else tokens.numpy()


@torch.inference_mode()
def passed(backbone: ViT, images: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return class and patch tokens of uint8 images."""
    found = _forward(backbone, to_images(np.array(images), CPU), "fp32", SharedBlocks(), 0)
    return found[0].clone(), found[1].clone()


def usual(backbone: ViT, store: Store, settings: dict[str, Any]) -> dict[str, Any]:
    """Run every probe with a loop of its own; the heads, batches and choices are ours."""
    found = {}
    for name, module in PROBES.items():
        features = FeatureSet()
        for split in ("train", "val", "test"):
            images = store.images(split)
            if name == "linear":
                for _ in range(1 + (EPOCHS if split == "train" else 1)):  # kNN's pass, and the linear head's
                    parts = [passed(backbone, images[i : i + BATCH])[0] for i in range(0, len(images), BATCH)]
                features.cls[split] = torch.cat(parts).numpy()
            else:
                features.patches[split] = Live(backbone, images)  # type: ignore[assignment]
        config = module.Config.model_validate(settings[name])

        def as_it_is(array: Any, device: torch.device) -> Any:
            return array if isinstance(array, Live) else torch.from_numpy(array)

        with mock.patch.object(dense, "resident", as_it_is):
            found[name] = module.run(features, store, config, seed=0, device=CPU, examples=0, drawn=frozenset())
    return found


def same_scores(ours: dict[str, Any], other: dict[str, Any]) -> str:
    """Say how far apart the test scores are."""
    apart = max(
        abs(value - other[probe].metrics["test"][metric])
        for probe, result in ours.items()
        for metric, value in result.metrics["test"].items()
    )
    assert apart <= 1e-5, f"scores are {apart:.1e} apart"
    return f"all test scores equal to {apart:.0e}" if apart else "all test scores equal"


def settings(train: int) -> dict[str, Any]:
    """Return the probes' settings: one rate, so that the reference need not read validation images more than once."""
    head = {"steps": max(1, EPOCHS * train // BATCH), "batch_size": BATCH, "lr_grid": [1e-3]}
    return {
        "features": {"batch_size": BATCH},
        "examples": 0,
        "linear": {"c_grid": [1.0, 10.0]},
        "segmentation": head,
        "depth": head,
    }


def cases(small: bool) -> Iterator[Case]:
    """Yield the row."""
    model, size, counts = (
        ("test_vit", 32, {"train": 8, "val": 4, "test": 4})
        if small
        else ("vit_small_patch16_224", 64, {"train": 16, "val": 8, "test": 8})
    )
    with tempfile.TemporaryDirectory() as folder:
        store = labelled_store(Path(folder, "store"), size, counts)
        backbone = make_backbone(model, size).eval().requires_grad_(False)
        plain = settings(counts["train"])
        yield Case(
            "evaluation of a checkpoint (kNN, linear, segmentation, depth)",
            f"a backbone pass per probe and epoch, {EPOCHS} epochs",
            10.0,
            lambda: evaluate(backbone, store, plain, seed=0, device=CPU, precision="fp32"),
            lambda: usual(backbone, store, plain),
            same_scores,
        )
