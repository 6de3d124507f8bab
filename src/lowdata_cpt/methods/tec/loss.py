"""What the frozen base teaches, and the two losses (TEC, arXiv 2210.11016, section 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lowdata_cpt.backbones.attention import block_query_key
from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.methods.mae.loss import gather_tokens

EPSILON = 1e-6


class Targets(NamedTuple):
    """What the student must predict.

    Attributes:
        feature: F [B, N, D], mean of the last blocks' patch tokens before the final norm, not yet normalised.
        relation: A [B, H, c + k, N], the last block's attention logits from CLS (c = 1 where there is one) and the k
            chosen patches to all patches.
        queries: [B, k] indices of the chosen patches.
    """

    feature: Tensor
    relation: Tensor
    queries: Tensor


@torch.no_grad()
def base_targets(base: ViT, x: Tensor, queries: int, blocks: int) -> Targets:
    """Return the targets from whole images x [B, 3, S, S] in one pass: `queries` patches, mean of `blocks` blocks."""
    prefix, first = base.num_prefix_tokens, max(0, base.depth - blocks)
    tokens, rope = base.embed(x)
    total: Tensor | None = None
    for i in range(base.depth):
        if i == base.depth - 1:
            relation, chosen = relation_target(*block_query_key(base, i, tokens, rope), prefix, base.has_cls, queries)
        tokens = base.run_block(i, tokens, rope)
        if i >= first:
            patches = tokens[:, prefix:].float()
            total = patches if total is None else total + patches
    assert total is not None
    return Targets(total / (base.depth - first), relation, chosen)


def relation_target(q: Tensor, k: Tensor, prefix: int, has_cls: bool, queries: int) -> tuple[Tensor, Tensor]:
    """Return A [B, H, c + k, N] and the query patches [B, k].

    Patches are ranked by the head-averaged logit CLS -> patch; without a class token by the mean over patch queries.

    Args:
        q: [B, H, T, d_head], scaled by 1/√d_head.
        k: [B, H, T, d_head].
        prefix: number of prefix tokens among the T.
        has_cls: whether the first of them is a class token.
        queries: number of patches to choose; at most all of them.
    """
    q_patches, k_patches = q[:, :, prefix:].float(), k[:, :, prefix:].float()
    cls = q[:, :, :1].float()
    with torch.autocast(q.device.type, enabled=False):  # or the products would be rounded to bfloat16 again
        rank = ((cls if has_cls else q_patches.mean(2, keepdim=True)) @ k_patches.transpose(-2, -1)).mean((1, 2))
        chosen = rank.topk(min(queries, rank.shape[1]), dim=1).indices
        selected = select_queries(q_patches, chosen)
        if has_cls:
            selected = torch.cat([cls, selected], dim=2)
        return selected @ k_patches.transpose(-2, -1), chosen


def select_queries(q: Tensor, chosen: Tensor) -> Tensor:
    """Gather patch queries q [B, H, N, d] at [B, k] -> [B, H, k, d]."""
    return q.gather(2, chosen[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[3]))


def normalise_feature(feature: Tensor) -> Tensor:
    """Normalise [B, N, D] per image and per channel over the N tokens, with the unbiased variance."""
    variance, mean = torch.var_mean(feature, dim=1, keepdim=True)
    return (feature - mean) / (variance + EPSILON).sqrt()


def feature_loss(prediction: Tensor, target: Tensor, masked: Tensor) -> Tensor:
    """Return the mean squared error of prediction [B, N, D] to the normalised target, on masked tokens [B, M] only."""
    return F.mse_loss(
        gather_tokens(prediction.float(), masked), gather_tokens(normalise_feature(target.float()), masked)
    )


def relation_loss(prediction: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of softmax(target / τ) and softmax(prediction) over the keys, both [B, H, Q, N].

    Mean over images, heads and queries; τ sharpens or softens the teacher only.
    """
    teacher = (target.float() / temperature).softmax(-1)
    return -(teacher * prediction.float().log_softmax(-1)).sum(-1).mean()
