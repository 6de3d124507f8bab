"""From a cell's images to a run: the context a learner is built in, and the labelled images some methods ask for."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch

from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.data.feedback import DENSE, feedback_rows
from lowdata_cpt.data.store import Store
from lowdata_cpt.training.config import Recipe, Training
from lowdata_cpt.training.learner import Context, Feedback
from lowdata_cpt.training.loop import Run
from lowdata_cpt.vision.images import channel_statistics


def feedback_of(store: Store, drawn: Collection[str]) -> Feedback:
    """Return the labelled train images that are not `drawn` (sha256), or all where too few are left (`feedback_rows`).

    A val or test image among them is a programming error and stops the run.
    """
    chosen = feedback_rows(store, drawn)
    infos = {task: store.task(task) for task in DENSE if task in store.meta.tasks}
    name = next(iter(infos.values())).sets["train"]
    rows = store.rows(name).iloc[chosen]
    for info in infos.values():
        for split in ("val", "test"):
            held_out = set(store.rows(info.sets[split])["sha256"])
            assert not held_out & set(rows["sha256"]), f"a feedback image is a {split} image"
    segmentation, depth = infos.get("segmentation"), infos.get("depth")
    return Feedback(
        images=store.images(name)[chosen],
        segmentation=store.segmentation(name)[chosen] if segmentation else None,
        depth=store.depth(name)[chosen] if depth and depth.sets["train"] == name else None,
        classes=len(segmentation.classes) if segmentation else 0,
        ignore_index=segmentation.ignore_index if segmentation else 255,
        depth_range=depth.depth_range if depth else (1e-3, 10.0),
        sha256=tuple(rows["sha256"]),
    )


def prepare_run(
    method: Recipe,
    training: Training,
    vit: ViT,
    images: np.ndarray,
    store: Store,
    seed: int,
    device: torch.device,
    folder: Path,
    key: str,
    drawn: Collection[str] = (),
) -> Run:
    """Build learner and run; the learner's new weights come from the global generator, seeded here.

    `drawn` is the sha256 of each image, so that feedback comes from others.
    """
    _, steps_per_epoch = training.length(len(images))
    mean, std = channel_statistics(images)
    context = Context(
        n_images=len(images),
        image_size=vit.image_size,
        mean=vit.mean,
        std=vit.std,
        domain_mean=mean,
        domain_std=tuple(deviation or 1.0 for deviation in std),  # images of a constant channel are divided by it
        steps=training.steps(len(images)),
        steps_per_epoch=steps_per_epoch,
        batch_size=training.batch_size,
        seed=seed,
        device=device,
        feedback=feedback_of(store, drawn) if method.needs_feedback else None,
    )
    torch.manual_seed(seed)
    learner = method.learner()(vit, method, context)
    label = f"{method.method} n={len(images)} seed={seed}"
    return Run(learner, images, method, training, seed=seed, device=device, folder=folder, identity=key, label=label)
