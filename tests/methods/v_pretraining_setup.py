"""Small V-pretraining learners with labelled images, for its tests and its benchmark."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from lowdata_cpt.methods.v_pretraining.config import VPretraining
from lowdata_cpt.methods.v_pretraining.learner import VPretrainingLearner
from lowdata_cpt.training.learner import Feedback
from tests.methods.harness import make_backbone, make_images, make_learner

CLASSES, IGNORE = 3, 255
CUT = ("vit_tiny_patch16_224", 32)


def make_feedback(
    count: int = 12, size: int = 32, *, segmentation: bool = True, depth: bool = True, seed: int = 7, permute: int = 0
) -> Feedback:
    """Coloured blobs: the class is the strongest channel, the depth 1 m plus the brightness; some pixels not labelled.

    `permute` hands the labels of image i to image i − permute.
    """
    images = make_images(count, size, seed)
    classes = images.argmax(1).numpy().astype(np.uint8)
    metres = (1 + 4 * images.mean(1)).numpy().astype(np.float32)
    classes[:, :3], metres[:, -3:] = IGNORE, 0
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return Feedback(
        images=pixels,
        segmentation=np.roll(classes, -permute, axis=0) if segmentation else None,
        depth=np.roll(metres, -permute, axis=0) if depth else None,
        classes=CLASSES,
        ignore_index=IGNORE,
        depth_range=(0.1, 10.0),
        sha256=tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in pixels),
    )


def small_config(**changes: Any) -> VPretraining:
    fields: dict[str, Any] = {
        "optimiser": {"lr": 1e-4, "weight_decay": 0.04, "clip": 1.0},
        "prototypes": 64,
        "head_hidden": 32,
        "head_bottleneck": 16,
        "local_crops": 2,
        "every": 2,
        "feedback_batch": 4,
        "value_batch": 3,
        "designer_channels": 4,
        "designer_lr": 1e-3,
    }
    return VPretraining(**(fields | changes))


def small_learner(
    config: VPretraining | None = None,
    *,
    backbone: tuple[str, int] = CUT,
    feedback: Feedback | None = None,
) -> VPretrainingLearner:
    vit = make_backbone(*backbone)
    if backbone == CUT:
        # Three blocks are enough to have blocks before S and in S.
        vit.model.blocks = vit.blocks = vit.blocks[:3]
        vit.depth = 3
    labelled = make_feedback(size=backbone[1]) if feedback is None else feedback
    learner = make_learner(config or small_config(), vit, feedback=labelled)
    assert isinstance(learner, VPretrainingLearner)
    return learner
