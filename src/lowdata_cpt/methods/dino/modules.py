"""DINO's projection head and its teacher that follows by EMA (arXiv 2104.14294; shared with GLARE, V-pretraining)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DINOHead(nn.Module):
    """Projection head: MLP, l2-normalised bottleneck, last layer with rows of unit length and no bias (section 3.1).

    Args:
        width: D, width of the features.
        prototypes: K, number of outputs.
        hidden: width of the MLP's hidden layers.
        bottleneck: width of the l2-normalised layer before the prototypes.
        layers: number of linear layers of the MLP.
    """

    def __init__(
        self, width: int, prototypes: int, *, hidden: int = 2048, bottleneck: int = 256, layers: int = 3
    ) -> None:
        super().__init__()
        widths = [width, *[hidden] * (layers - 1), bottleneck]
        modules: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(pairwise(widths)):
            linear = nn.Linear(inputs, outputs)
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
            modules += [linear] if i == layers - 1 else [linear, nn.GELU()]
        self.mlp = nn.Sequential(*modules)
        self.last = nn.Linear(bottleneck, prototypes, bias=False)

    def forward(self, x: Tensor, freeze_last: bool = False) -> Tensor:
        """Map features [..., D] to logits [..., K]; `freeze_last` keeps gradients from the prototypes."""
        x = F.normalize(self.mlp(x), dim=-1, eps=1e-6)
        weight = self.last.weight.detach() if freeze_last else self.last.weight
        return F.linear(x, F.normalize(weight, dim=1))


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Set every parameter θ' of the teacher to m θ' + (1 − m) θ, and copy the buffers."""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
    for theirs, ours in zip(teacher.buffers(), student.buffers(), strict=True):
        theirs.copy_(ours)


def cosine(start: float, end: float, fraction: float) -> float:
    """Return the value at `fraction` of a half cosine from `start` to `end`: EMA momentum (DINO: .996 to 1)."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, fraction))) / 2
