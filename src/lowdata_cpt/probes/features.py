"""The feature pass: every labelled image goes through the frozen backbone once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from lowdata_cpt.backbones.vit import Features, ViT
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import atomic_path
from lowdata_cpt.data.store import SPLITS, Store
from lowdata_cpt.probes.config import FeaturesConfig
from lowdata_cpt.probes.feature_file import METADATA_KEY, Facts
from lowdata_cpt.vision import augment
from lowdata_cpt.vision.images import resize, to_images


def labelled_sets(store: Store) -> dict[str, bool]:
    """Return the image sets of all tasks, each once, and whether a dense task reads them."""
    sets: dict[str, bool] = {}
    for task, info in store.meta.tasks.items():
        for split in SPLITS:
            if split not in info.sets:
                raise UserError(
                    f"{store.root / 'meta.json'}: task {task!r} has no {split!r} set; all of {SPLITS} are needed"
                )
            name = info.sets[split]
            sets[name] = sets.get(name, False) or task != "classification"
    return sets


def _batches(images: NDArray[np.uint8], size: int, device: torch.device) -> Iterator[Tensor]:
    """Yield [B, 3, H, W] in [0, 1] on `device`."""
    for start in range(0, len(images), size):
        yield to_images(np.array(images[start : start + size]), device)


def diet_view(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Augment [B, 3, H, W] once as DIET-CP does (2509.06990, authors' code): crop, flip, jitter, grayscale."""
    x = augment.random_resized_crop(images, size, generator)
    x = augment.color_jitter(x, generator, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2, p=0.3)
    return augment.random_grayscale(x, generator, p=0.2)


def _forward(backbone: ViT, images: Tensor, precision: str) -> Features:
    x = backbone.normalise(images)
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        features = backbone(x)
    return Features(features.cls.float(), features.patches.float())


@torch.inference_mode()
def extract(
    backbone: ViT,
    store: Store,
    config: FeaturesConfig,
    device: torch.device,
    target: Path,
    *,
    seed: int,
    precision: str,
) -> None:
    """Write the features of every labelled set of every task to `target` (layout: `feature_file`).

    A set that several tasks share is passed once. Class tokens are taken after the final norm and are not
    normalised; `seed` only draws the augmented bank.

    Raises:
        UserError: a task lacks a split, or the features are not finite.
    """
    backbone.to(device).eval()
    size, grid = backbone.image_size, backbone.grid()
    tensors: dict[str, Tensor] = {}
    for name, dense in labelled_sets(store).items():
        cls, patches = [], []
        for images in _batches(store.images(name), config.batch_size, device):
            features = _forward(backbone, resize(images, size), precision)
            cls.append(features.cls.cpu())
            if dense:
                patches.append(features.patches.half().cpu().view(-1, grid, grid, backbone.width))
        tensors[f"{name}/cls"] = torch.cat(cls)
        if dense:
            tensors[f"{name}/patches"] = torch.cat(patches)
    if config.augmented_bank and "classification" in store.meta.tasks:
        name, generator = store.task("classification").sets["train"], torch.Generator().manual_seed(seed)
        tensors[f"{name}/cls_augmented"] = torch.cat(
            [
                _forward(backbone, diet_view(images, size, generator), precision).cls.cpu()
                for images in _batches(store.images(name), config.batch_size, device)
            ]
        )
    bad = sorted(key for key, value in tensors.items() if not torch.isfinite(value).all())
    if bad:
        raise UserError(f"{target}: backbone {backbone.name!r} gives features that are not finite ({', '.join(bad)})")
    facts = Facts(
        domain=store.meta.domain,
        content_sha256=store.meta.content_sha256,
        backbone=backbone.name,
        image_size=size,
        grid=grid,
        width=backbone.width,
    )
    with atomic_path(target) as temporary:
        save_file(tensors, temporary, metadata={METADATA_KEY: facts.model_dump_json()})
