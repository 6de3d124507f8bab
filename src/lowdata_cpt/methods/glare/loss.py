"""GLARE's local term: which patches are compared, and how its two parts are weighed.

The terms themselves are DINO's cross-entropy (`dino.loss`): L = w_g L_global + w_r L_regional + w_l L_local.
"""

from __future__ import annotations

import torch
from torch import Tensor


def local_pairs(blurred: Tensor, match: Tensor) -> tuple[Tensor, Tensor]:
    """Return the student's patches that L_local asks about, and the teacher's that answer.

    Args:
        blurred: bool [2, B, N], the patches that the student sees blurred.
        match: [2, B, N], the other view's patch at the same place, or -1 (see `match_patches`).

    Returns:
        Two index vectors into the 2·B·N patches of both views: first each blurred patch and its clean self, then each
        matched patch and its counterpart.
    """
    flat = torch.arange(match.numel(), device=match.device).view_as(match)
    other = flat[..., :1].flip(0) + match
    paired = match >= 0
    return torch.cat([flat[blurred], flat[paired]]), torch.cat([flat[blurred], other[paired]])


def mean_of_parts(losses: Tensor, n_blurred: int) -> Tensor:
    """Return the mean of the blurred and the cross-view part of losses [pairs]; of the first where none is matched."""
    same, across = losses.tensor_split([n_blurred])
    return (same.mean() + across.mean()) / 2 if len(across) else same.mean()
