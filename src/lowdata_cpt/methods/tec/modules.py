"""The conditional adapter and the two-branch decoder (TEC, arXiv 2210.11016, section 3), trained and then dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import Mlp  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.methods.mae.modules import DecoderBlocks, DecoderInput, xavier
from lowdata_cpt.methods.tec.loss import select_queries

_CLS = "cls_token"


def add_input_adapter(backbone: ViT, *, identity: bool) -> None:
    """Make the backbone read its class token through an MLP, D -> 4D -> D, without residual.

    Args:
        backbone: changed in place; its `cls_token` becomes MLP(cls_token) wherever it is read.
        identity: choose the last bias so that MLP(cls_token) starts at cls_token.
    """
    mlp: Any = Mlp(backbone.width, 4 * backbone.width)
    mlp.apply(xavier)
    if identity:
        with torch.no_grad():
            token = getattr(backbone.model, _CLS)
            mlp.fc2.bias.copy_((token - mlp(token)).flatten())
    parametrize.register_parametrization(backbone.model, _CLS, mlp)


def folded_state(backbone: ViT) -> dict[str, Tensor]:
    """Return the timm state dict with MLP(cls_token) folded into `cls_token`."""
    state = {key: value for key, value in backbone.timm_state().items() if not key.startswith("parametrizations.")}
    if backbone.has_cls:
        state[_CLS] = getattr(backbone.model, _CLS).detach().cpu().contiguous()
    return state


class EncoderAdapter(nn.Module):
    """Fuse the outputs of all L blocks: LN(L·D), per group Linear(blocks·D -> D) and z + MLP(z), sum, LN(D)."""

    def __init__(self, width: int, depth: int, hidden: int) -> None:
        super().__init__()
        groups = max(1, depth // 3)
        self.sizes = [width * len(part) for part in torch.arange(depth).tensor_split(groups)]
        self.norm_in = nn.LayerNorm(width * depth)
        self.fuse = nn.ModuleList([nn.Linear(size, width) for size in self.sizes])
        self.mlps = nn.ModuleList([Mlp(width, hidden) for _ in self.sizes])
        self.norm_out = nn.LayerNorm(width)
        self.apply(xavier)

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        """L tensors [B, T, D] -> [B, T, D]."""
        parts = self.norm_in(torch.cat(list(outputs), dim=-1)).split(self.sizes, dim=-1)
        fused = [linear(part) for linear, part in zip(self.fuse, parts, strict=True)]
        total = torch.stack([z + mlp(z) for mlp, z in zip(self.mlps, fused, strict=True)]).sum(0)
        return self.norm_out(total)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Two branches, feature and relation, with their own input, norm and head, through shared blocks and positions."""

    def __init__(
        self, width: int, heads: int, *, decoder_width: int, decoder_heads: int, depth: int, grid: int, has_cls: bool
    ) -> None:
        """Build for a backbone of `width` and `heads` on a grid² of patches.

        Raises:
            UserError: the backbone's width does not divide into its heads.
        """
        super().__init__()
        if width % heads:
            raise UserError(
                f"TEC's relation head needs a backbone width divisible by its heads, got {width} and {heads}"
            )
        self.heads, self.patches, self.has_cls, self.scale = heads, grid**2, has_cls, width**-0.5
        self.shared = DecoderBlocks(decoder_width, decoder_heads, depth, grid, has_cls=has_cls)
        self.feature_input = DecoderInput(width, decoder_width)
        self.feature_norm = nn.LayerNorm(decoder_width, eps=1e-6)
        self.feature_head = nn.Linear(decoder_width, width)
        self.relation_input = DecoderInput(width, decoder_width)
        self.relation_norm = nn.LayerNorm(decoder_width, eps=1e-6)
        self.relation_head = nn.Linear(decoder_width, 2 * width)
        self.feature_head.apply(xavier)
        self.relation_head.apply(xavier)

    def feature(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Predict the feature of every patch: [B, c + K, D] -> [B, N, D]."""
        x = self.shared(self.feature_input(tokens, visible, self.patches))
        return self.feature_head(self.feature_norm(x[:, int(self.has_cls) :]))  # type: ignore[no-any-return]

    def relation(self, tokens: Tensor, visible: Tensor, queries: Tensor) -> Tensor:
        """Predict the logits from CLS and the patches `queries` [B, k] to all patches: -> [B, H, c + k, N]."""
        x = self.relation_norm(self.shared(self.relation_input(tokens, visible, self.patches)))
        qk = self.relation_head(x).view(*x.shape[:2], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = qk.unbind(0)
        prefix = int(self.has_cls)
        selected = torch.cat([q[:, :, :prefix], select_queries(q[:, :, prefix:], queries)], dim=2)
        return (selected @ k[:, :, prefix:].transpose(-2, -1)) * self.scale  # type: ignore[no-any-return]
