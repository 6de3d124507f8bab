"""softmax(logits) @ v must be what timm's own attention module computes, for every kind of attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.layers.attention import Attention, AttentionRope
from timm.models.eva import EvaAttention
from torch import Tensor

from lowdata_cpt.backbones.attention import attention_logits, query_key
from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.core.errors import UserError

MODELS = {
    "plain": ("vit_tiny_patch16_224", 64),
    "registers": ("vit_small_patch14_reg4_dinov2", 56),
    "rope, prefix tokens": ("vit_small_patch16_dinov3", 64),
    "rope, separate biases": ("vit_small_patch16_dinov3_qkvb", 64),
    "unfused projections": ("eva02_tiny_patch14_224", 56),
    "mixed rope": ("vit_small_patch16_rope_mixed_224", 64),
    "no class token": ("vit_wee_patch16_reg1_gap_256", 64),
}


def values(attention: Any, x: Tensor) -> Tensor:
    """v of a timm attention module, [B, H, T, d_head]."""
    batch, count, _ = x.shape
    if attention.qkv is None:
        v = attention.v_proj(x)
    else:
        v = attention.qkv(x).chunk(3, dim=-1)[2]
        if getattr(attention, "v_bias", None) is not None:
            v = v + attention.v_bias
    return v.view(batch, count, attention.num_heads, -1).transpose(1, 2)


def finish(attention: Any, weights: Tensor, x: Tensor) -> Tensor:
    out = (weights @ values(attention, x)).transpose(1, 2).flatten(2)
    out = attention.norm(out)
    if attention.gate is not None:
        out = out * attention.gate(x).sigmoid()
    return attention.proj(out)


def awaken(module: torch.nn.Module) -> None:
    """Move every parameter away from its initial value, so that no bias or norm is trivial."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("kept", [False, True])
def test_logits_reproduce_the_blocks_own_attention(kind: str, kept: bool) -> None:
    name, size = MODELS[kind]
    vit = ViT(name, image_size=size).eval()
    awaken(vit)
    grid = vit.grid()
    keep = torch.stack([torch.randperm(grid**2)[:5] for _ in range(2)]) if kept else None
    seen: dict[str, Any] = {}

    def record(_: Any, args: Any, kwargs: Any, output: Tensor) -> None:
        seen.update(x=args[0], output=output)

    with torch.no_grad():
        tokens, rope = vit.embed(torch.randn(2, 3, size, size), keep)
        tokens = vit.run_block(0, tokens, rope)
        attention: Any = vit.blocks[1].attn
        attention.register_forward_hook(record, with_kwargs=True)
        vit.run_block(1, tokens, rope)
        logits = attention_logits(vit, 1, tokens, rope)
        assert logits.shape == (2, vit.num_heads, tokens.shape[1], tokens.shape[1])
        mine = finish(attention, logits.softmax(-1), seen["x"])
    torch.testing.assert_close(mine, seen["output"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "attention",
    [
        lambda: Attention(48, 3, qkv_bias=True, qk_norm=True, norm_layer=torch.nn.LayerNorm),
        lambda: EvaAttention(48, 3, qk_norm=True, norm_layer=torch.nn.LayerNorm, qkv_bias_separate=True),
        lambda: AttentionRope(48, 4, num_kv_heads=2, qkv_fused=False),
        lambda: AttentionRope(48, 3, gated=True, rotate_half=True),
    ],
    ids=["q/k norm", "separate biases with q/k norm", "grouped queries", "gated, half rotation"],
)
def test_kinds_of_attention_that_no_small_model_has(attention: Any) -> None:
    module: Any = attention().eval()
    awaken(module)
    x = torch.randn(2, 7, 48)
    rope = None if isinstance(module, Attention) else torch.randn(6, 2 * module.head_dim)
    with torch.no_grad():
        q, k = query_key(module, x, rope)
        expected = module(x) if rope is None else module(x, rope=rope)
        weights = (q @ k.transpose(-2, -1) * module.head_dim**-0.5).softmax(-1)
        v = x
        if getattr(module, "num_kv_groups", 1) > 1:
            v = module.v_proj(x).view(2, 7, -1, module.head_dim).transpose(1, 2).repeat_interleave(2, 1)
            mine = module.proj((weights @ v).transpose(1, 2).flatten(2))
        else:
            mine = finish(module, weights, x)
    torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-4)


def test_query_indices_select_rows() -> None:
    vit = ViT("vit_small_patch16_dinov3", image_size=64).eval()
    with torch.no_grad():
        tokens, rope = vit.embed(torch.randn(2, 3, 64, 64))
        every = attention_logits(vit, -1, tokens, rope)
        assert torch.equal(attention_logits(vit, vit.depth - 1, tokens, rope), every)
        one = attention_logits(vit, -1, tokens, rope, torch.tensor([0, 7]))
        torch.testing.assert_close(one, every[:, :, [0, 7]])
        each = attention_logits(vit, -1, tokens, rope, torch.tensor([[0, 7, 5], [3, 2, 1]]))
        torch.testing.assert_close(each[1], every[1][:, [3, 2, 1]])


def test_attention_without_one_product_is_refused() -> None:
    vit = ViT("vit_tiny_patch16_224", image_size=64)
    vit.blocks[0].attn = torch.nn.Identity()
    with pytest.raises(UserError, match="block 0 has Identity"):
        attention_logits(vit, 0, torch.zeros(1, 17, 192))
