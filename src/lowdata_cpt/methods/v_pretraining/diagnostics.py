"""Diagnostics of V-pretraining: its masks during training, and how well V predicts the fall of the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowdata_cpt.methods.v_pretraining.learner import VPretrainingLearner
from lowdata_cpt.methods.v_pretraining.predict import ARMS, predicted_vs_realised
from lowdata_cpt.vision.images import normalise, resize

PAIRS, PAIR_BATCH = 40, 16


@torch.no_grad()
def during(learner: VPretrainingLearner, images: Tensor) -> dict[str, NDArray[Any]]:
    """Return `mask` [K, S, S] of whole images [K, 3, H, W] in [0, 1]."""
    size = learner.context.image_size
    small = resize(images, size)
    mask = learner.designer(normalise(small, learner.context.mean, learner.context.std))
    return {"mask": mask[:, 0].cpu().numpy().astype(np.float16)}


def at_the_end(learner: VPretrainingLearner, pool: Tensor) -> dict[str, NDArray[Any]]:
    """Return `predicted` and `realised` [A, n] of n real batches of `pool`, and the arms (see `predict`)."""
    predicted, realised = predicted_vs_realised(learner, pool, count=PAIRS, batch_size=min(PAIR_BATCH, len(pool)))
    return {
        "predicted": predicted.numpy(),
        "realised": realised.numpy(),
        "arms": np.array([f"{arm.update} {arm.scope} {arm.lr:g}" for arm in ARMS]),
    }
