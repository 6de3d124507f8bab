"""DIET-CP's loss: each image is its own class."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def instance_loss(logits: Tensor, index: Tensor, label_smoothing: float) -> Tensor:
    """Return the smoothed cross-entropy of logits [B, N] against each image's own index [B]."""
    return F.cross_entropy(logits, index, label_smoothing=label_smoothing)
