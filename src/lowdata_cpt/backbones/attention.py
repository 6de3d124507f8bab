"""Attention logits of one block, which timm's fused attention never shows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention, AttentionRope
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from timm.models.eva import EvaAttention, EvaBlockPostNorm
from timm.models.vision_transformer import ResPostBlock
from torch import Tensor

from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.core.errors import UserError


def attention_logits(
    vit: ViT, block_index: int, tokens_in: Tensor, rope: Tensor | None = None, queries: Tensor | None = None
) -> Tensor:
    """Return q kᵀ / √d_head before the softmax, after q/k norm and rotary embedding.

    Args:
        vit: the backbone.
        block_index: which block; negative counts from the last.
        tokens_in: [B, T, D], what enters that block (prefix tokens first).
        rope: what `ViT.embed` returned beside the tokens.
        queries: rows to compute, [Q] or [B, Q] token indices (0 = CLS where there is one); all T when None.

    Returns:
        [B, H, Q, T].

    Raises:
        UserError: the block's attention is of a kind whose logits are not a single q kᵀ.
    """
    q, k = block_query_key(vit, block_index, tokens_in, rope)
    if queries is not None:
        if queries.ndim == 1:
            q = q[:, :, queries]
        else:
            q = q.gather(2, queries[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[3]))
    return q @ k.transpose(-2, -1)


def block_query_key(vit: ViT, block_index: int, tokens_in: Tensor, rope: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return q / √d_head and k of one block, each [B, H, T, d_head]; arguments and errors as in `attention_logits`."""
    block: Any = vit.blocks[block_index]
    attention = getattr(block, "attn", None)
    if not isinstance(attention, Attention | EvaAttention | AttentionRope):
        raise UserError(
            f"backbone model {vit.name!r}: block {block_index} has {type(attention).__name__}; expected attention "
            "with one query-key product (timm Attention, EvaAttention or AttentionRope)"
        )
    post_norm = isinstance(block, ResPostBlock | EvaBlockPostNorm)
    q, k = query_key(attention, tokens_in if post_norm else block.norm1(tokens_in), _block_rope(vit, block_index, rope))
    return q * attention.scale, k


def query_key(attention: Any, x: Tensor, rope: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the queries and keys that a timm attention module multiplies, each [B, H, T, d_head].

    Args:
        attention: timm Attention, EvaAttention or AttentionRope.
        x: [B, T, D], what enters the module.
        rope: rotary embedding of the T - prefix patch tokens, or None.
    """
    batch, count, _ = x.shape
    if attention.qkv is not None:
        # Only the q and k rows of the fused projection are applied: v is not needed.
        rows = 2 * attention.num_heads * attention.head_dim
        bias = attention.qkv.bias
        if getattr(attention, "q_bias", None) is not None:  # EvaAttention keeps q and v biases apart, k has none
            bias = torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias)])
        projected = F.linear(x, attention.qkv.weight[:rows], None if bias is None else bias[:rows])
        q, k = projected.view(batch, count, 2, attention.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    else:
        q = attention.q_proj(x).view(batch, count, -1, attention.head_dim).transpose(1, 2)
        k = attention.k_proj(x).view(batch, count, -1, attention.head_dim).transpose(1, 2)
    q, k = attention.q_norm(q), attention.k_norm(k)
    if rope is not None:
        q, k = _rotate(attention, q, rope), _rotate(attention, k, rope)
    groups = q.shape[1] // k.shape[1]
    return q, k.repeat_interleave(groups, dim=1) if groups > 1 else k


def _rotate(attention: Any, x: Tensor, rope: Tensor) -> Tensor:
    """Rotate the patch tokens of [B, H, T, d_head]; prefix tokens have no position."""
    prefix, patches = x[:, :, : attention.num_prefix_tokens], x[:, :, attention.num_prefix_tokens :]
    return torch.cat([prefix, apply_rot_embed_cat(patches, rope, half=attention.rotate_half)], dim=2).type_as(x)


def _block_rope(vit: ViT, block_index: int, rope: Tensor | None) -> Tensor | None:
    """Return the rotary embedding of one block; models with mixed frequencies have one for each."""
    return rope[block_index] if rope is not None and getattr(vit.model, "rope_mixed", False) else rope
