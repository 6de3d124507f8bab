"""What masked reconstruction trains: the whole backbone, mask tokens, a light decoder (MAE; shared with TEC)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from lowdata_cpt.backbones.vit import ViT

# What a masked-reconstruction student trains; position embeddings (and poolers no feature passes) stay frozen.
_TRAINED = ("patch_embed.", "cls_token", "reg_token", "parametrizations.cls_token", "norm_pre.", "blocks.", "norm.")


def drop_registers(backbone: ViT, tokens: Tensor) -> Tensor:
    """Return the class token (where there is one) and the patch tokens of [B, prefix + K, D]."""
    patches = tokens[:, backbone.num_prefix_tokens :]
    return torch.cat([tokens[:, :1], patches], dim=1) if backbone.has_cls else patches


def sincos_positions(grid: int, width: int) -> Tensor:
    """Return fixed 2-d sine-cosine position embeddings [grid², width] (MAE, arXiv 2111.06377; width divisible by 4)."""
    frequency = 1 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.arange(grid, dtype=torch.float64)[:, None] * frequency
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)
    columns, rows = axis.repeat(grid, 1), axis.repeat_interleave(grid, 0)
    return torch.cat([columns, rows], dim=1).float()


def xavier(module: nn.Module) -> None:
    """Initialise Linear and patch-convolution weights Xavier-uniform, their biases zero, as MAE's code does."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.no_grad()
def start_at_random(backbone: ViT, seed: int) -> None:
    """Give the backbone MAE's random start: Xavier weights and, where positions are absolute, sine-cosine ones."""
    backbone.randomise(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone.apply(xavier)
    positions = getattr(backbone.model, "pos_embed", None)
    if positions is not None:
        grid = int(backbone.model.patch_embed.num_patches**0.5)
        positions.zero_()
        positions[0, positions.shape[1] - grid**2 :] = sincos_positions(grid, backbone.width)


def train_whole(backbone: ViT) -> None:
    """Train everything a feature passes, except position embeddings, which the MAE family keeps fixed."""
    for name, parameter in backbone.model.named_parameters():
        parameter.requires_grad_(name.startswith(_TRAINED))


class DecoderInput(nn.Module):
    """Project visible tokens to the decoder's width and put a mask token at every masked place."""

    def __init__(self, width: int, decoder_width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, decoder_width))
        self.apply(xavier)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, visible: Tensor, patches: int) -> Tensor:
        """[B, c + K, D] (c = 1 with a class token, else 0) and visible [B, K] -> [B, c + N, decoder width]."""
        x = self.project(tokens)
        prefix, seen = x[:, : x.shape[1] - visible.shape[1]], x[:, x.shape[1] - visible.shape[1] :]
        full = self.mask_token.to(x.dtype).expand(len(x), patches, -1)
        full = full.scatter(1, visible.unsqueeze(-1).expand(-1, -1, x.shape[-1]), seen)
        return torch.cat([prefix, full], dim=1)


class DecoderBlocks(nn.Module):
    """Fixed sine-cosine positions (zero for the class token) and pre-norm transformer blocks."""

    positions: Tensor

    def __init__(self, width: int, heads: int, depth: int, grid: int, *, has_cls: bool) -> None:
        super().__init__()
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(
            [Block(width, heads, mlp_ratio=4.0, qkv_bias=True, norm_layer=norm) for _ in range(depth)]
        )
        self.apply(xavier)
        positions = torch.cat([torch.zeros(int(has_cls), width), sincos_positions(grid, width)])
        self.register_buffer("positions", positions.unsqueeze(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c + N, width] -> [B, c + N, width]."""
        x = x + self.positions
        for block in self.blocks:
            x = block(x)
        return x
