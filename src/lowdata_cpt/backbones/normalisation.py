"""Which mean and standard deviation a backbone's images are normalised with, and how to change it in the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lowdata_cpt.core.errors import UserError

WEIGHT, BIAS = "patch_embed.proj.weight", "patch_embed.proj.bias"
Statistics = tuple[Sequence[float], Sequence[float]]


def fold(state: dict[str, Tensor], own: Statistics, shared: Statistics) -> dict[str, Tensor]:
    """Return weights that see images normalised with `shared` as `state` sees them normalised with `own`.

    With own = (m, s) and shared = (μ, σ): W (x − m)/s + b = W' (x − μ)/σ + b', where W'_c = W_c σ_c/s_c and
    b' = b + Σ_c ΣW_c (μ_c − m_c)/s_c. Exact, as the patch embedding does not pad.

    Args:
        state: of a timm ViT.
        own, shared: mean and standard deviation of each channel, of images in [0, 1].

    Raises:
        UserError: the patch embedding has no bias to take the shift.
    """
    if BIAS not in state:
        raise UserError(
            "the backbone's patch embedding has no bias, so the domain's mean and standard deviation cannot be put "
            "into its weights; expected `normalisation: pretraining` for diet_cp, and no base_domain_norm"
        )
    weight, bias = state[WEIGHT].double(), state[BIAS].double()
    (own_mean, own_std), (mean, std) = ([torch.tensor(list(v)).double() for v in pair] for pair in (own, shared))
    shift = (weight.sum((2, 3)) * ((mean - own_mean) / own_std)).sum(1)
    return state | {
        WEIGHT: (weight * (std / own_std)[:, None, None]).to(state[WEIGHT].dtype),
        BIAS: (bias + shift).to(state[BIAS].dtype),
    }
