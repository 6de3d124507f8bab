"""Diagnostics of GLARE: a region of one view, and where its cross-attention finds it in the other."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lowdata_cpt.methods.glare.learner import GLARELearner
from lowdata_cpt.methods.glare.regions import region_means, sample_regions


@torch.no_grad()
def during(learner: GLARELearner, images: Tensor) -> dict[str, NDArray[Any]]:
    """Return, for images [K, 3, H, W] in [0, 1] and the same two views every time:

    `views` uint8 [2, K, S, S, 3]; of the first view `attention` [K, g, g] (mean over heads) and `region` bool
    [K, g, g], the first region that is drawn; of the second view `found` [K, g, g], the cross-attention's weights.
    Without the regional term: nothing.
    """
    if learner.cross_attention is None:
        return {}
    config, context, count = learner.config, learner.context, len(images)
    grid = learner.backbone.grid(context.image_size)
    views = learner.views(images, torch.Generator().manual_seed(0))
    teacher_adapters = learner.teacher["adapters"]
    assert isinstance(teacher_adapters, nn.ModuleList)
    with learner.hooks.using(teacher_adapters):
        attention = learner.encode(views["clean"], attention=True).attention
    assert attention is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        regions = sample_regions(attention, config.regions, config.region_top, config.region_sides)
    patches = learner.encode(views["clean"]).patches
    z = region_means(patches.flatten(0, 1), regions)
    weights = learner.cross_attention.weights(z, patches.flip(0).flatten(0, 1))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (context.mean, context.std))
    pixels = (views["clean"].cpu() * std + mean).clamp(0, 1).mul(255).round().byte().permute(0, 1, 3, 4, 2)

    def square(values: Tensor) -> NDArray[Any]:
        return values[:count].view(count, grid, grid).cpu().numpy()

    return {
        "views": pixels.numpy(),
        "attention": square(attention.mean(1)),
        "region": square(regions[:, 0]).astype(bool),
        "found": square(weights[:, 0]),
    }


def at_the_end(learner: GLARELearner, pool: Tensor) -> dict[str, NDArray[Any]]:
    """Return nothing more."""
    return {}
