"""The feature pass: every labelled image goes through the frozen backbone once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.store import SPLITS, Store
from lowdata_cpt.probes.config import FeaturesConfig
from lowdata_cpt.probes.result import FeatureSet
from lowdata_cpt.vision import augment
from lowdata_cpt.vision.images import resize, to_images

CHUNK = 256
KEPT_BYTES = 2 * 1024**3


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


def _batches(images: NDArray[np.uint8], size: int, device: torch.device) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of images and these images [B, 3, H, W] in [0, 1] on `device`."""
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        yield part, to_images(np.array(images[part]), device)


def diet_view(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Augment [B, 3, H, W] once as DIET-CP does (2509.06990, authors' code): crop, flip, jitter, grayscale."""
    x = augment.random_resized_crop(images, size, generator)
    x = augment.color_jitter(x, generator, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2, p=0.3)
    return augment.random_grayscale(x, generator, p=0.2)


class SharedBlocks:
    """What the leading blocks give, kept while models that have them in common are passed one after another.

    A run's milestones differ only in what was trained: with DIET-CP's two trained blocks of twelve, seven milestones
    cost little more than two. Tokens are kept as they are, so features are equal to the last bit.
    """

    def __init__(self, blocks: int = 0, *, limit: int = KEPT_BYTES) -> None:
        """Keep tokens behind the first `blocks` blocks (0: none), at most `limit` bytes of them."""
        self.blocks, self.room = blocks, limit
        self.kept: dict[Hashable, tuple[Tensor, Tensor | None]] = {}

    def tokens(self, backbone: ViT, images: Tensor, key: Hashable) -> tuple[Tensor, Tensor | None]:
        """Return tokens [B, T, D] behind the shared blocks, and the rotary embedding, of the batch called `key`."""
        if key in self.kept:
            tokens, rope = self.kept[key]
            return tokens.to(images.device), rope
        tokens, rope = backbone.embed(backbone.normalise(resize(images, backbone.image_size)))
        for i in range(self.blocks):
            tokens = backbone.run_block(i, tokens, rope)
        if self.blocks and tokens.nbytes <= self.room:
            self.kept[key] = tokens.cpu(), rope
            self.room -= tokens.nbytes
        return tokens, rope


def _forward(
    backbone: ViT, images: Tensor, precision: str, shared: SharedBlocks, key: Hashable
) -> tuple[Tensor, Tensor]:
    """Return class tokens [B, D] and patch tokens [B, N, D] of images of any size, in fp32."""
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        tokens, rope = shared.tokens(backbone, images, key)
        for i in range(shared.blocks, backbone.depth):
            tokens = backbone.run_block(i, tokens, rope)
        features = backbone.finish(tokens)
    return features.cls.float(), features.patches.float()


@torch.inference_mode()
def extract(
    backbone: ViT,
    store: Store,
    config: FeaturesConfig,
    device: torch.device,
    *,
    precision: str,
    augmented: bool = False,
    seed: int = 0,
    shared: SharedBlocks | None = None,
) -> FeatureSet:
    """Return the features of every labelled set of every task; a set that several tasks share is passed once.

    Args:
        backbone: frozen.
        store: images.
        config: batch size.
        device: where the pass happens; features come back to the CPU.
        precision: fp32 or bf16 (autocast).
        augmented: also pass each classification train image once under DIET-CP's augmentation, drawn with `seed`.
        seed: of the augmented bank.
        shared: blocks that earlier or later backbones have in common with this one, on the same store.

    Raises:
        UserError: a task lacks a split, or the features are not finite.
    """
    backbone.to(device).eval()
    shared = shared or SharedBlocks()
    size, grid, found = backbone.image_size, backbone.grid(), FeatureSet()
    for name, dense in labelled_sets(store).items():
        images = store.images(name)
        cls = np.empty((len(images), backbone.width), np.float32)
        patches = np.empty((len(images), grid, grid, backbone.width), np.float16) if dense else None
        for part, batch in _batches(images, config.batch_size, device):
            of_image, of_patch = _forward(backbone, batch, precision, shared, (name, part.start))
            cls[part] = of_image.cpu().numpy()
            if patches is not None:
                patches[part] = of_patch.half().cpu().view(-1, grid, grid, backbone.width).numpy()
        found.cls[name] = cls
        if patches is not None:
            found.patches[name] = patches
    if augmented:
        name, generator = store.task("classification").sets["train"], torch.Generator().manual_seed(seed)
        found.augmented[name] = np.concatenate(
            [
                _forward(backbone, diet_view(batch, size, generator), precision, shared, ("augmented", part.start))[0]
                .cpu()
                .numpy()
                for part, batch in _batches(store.images(name), config.batch_size, device)
            ]
        )
    kinds: dict[str, Mapping[str, NDArray[Any]]] = {
        "class": found.cls,
        "patch": found.patches,
        "augmented class": found.augmented,
    }
    for kind, arrays in kinds.items():
        for name, array in arrays.items():
            if not all(np.isfinite(array[start : start + CHUNK]).all() for start in range(0, len(array), CHUNK)):
                raise UserError(f"backbone {backbone.name!r} gives {kind} tokens of set {name!r} that are not finite")
    return found
