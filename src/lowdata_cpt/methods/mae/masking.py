"""What masked reconstruction needs: random masks, mask tokens, light decoders, whole-backbone training (MAE, TEC)."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.core.errors import UserError

# What a masked-reconstruction student trains; position embeddings (and poolers no feature passes) stay frozen.
_TRAINED = ("patch_embed.", "cls_token", "reg_token", "parametrizations.cls_token", "norm_pre.", "blocks.", "norm.")


class Mask(NamedTuple):
    """A random split of N patches: indices of the visible [B, K] and of the masked [B, N - K] ones."""

    visible: Tensor
    masked: Tensor


def random_mask(batch: int, patches: int, ratio: float, generator: torch.Generator | None = None) -> Mask:
    """Draw a mask per image on the CPU, K = int(N · (1 - ratio)) but at least one patch on either side.

    Args:
        batch: B.
        patches: N.
        ratio: masked fraction.
        generator: CPU generator; torch's global one when None.

    Raises:
        UserError: there are fewer than two patches.
    """
    if patches < 2:
        raise UserError(f"masked reconstruction needs at least 2 patches an image, got {patches}; raise image_size")
    kept = min(patches - 1, max(1, int(patches * (1 - ratio))))
    order = torch.rand(batch, patches, generator=generator).argsort(dim=1)
    return Mask(order[:, :kept], order[:, kept:])


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Gather tokens [B, N, D] at index [B, M] -> [B, M, D]."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


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


def decoder_shape(width: int, decoder_width: int | None, decoder_heads: int | None) -> tuple[int, int]:
    """Return width and heads of the decoder for a backbone of `width`.

    TEC's code has 512 for ViT-B and 768 for ViT-L, 16 heads; narrower backbones get 2/3 of their width, in steps of
    64, with 32 channels a head.

    Raises:
        UserError: the given width is not divisible by 4 or by the number of heads.
    """
    default = round(width * (2 / 3 if width <= 768 else 3 / 4) / 64) * 64
    chosen = decoder_width or max(64, default)
    heads = decoder_heads or max(1, min(16, chosen // 32))
    if chosen % 4 or chosen % heads:
        raise UserError(f"decoder_width {chosen} must be divisible by 4 and by the {heads} heads of the decoder")
    return chosen, heads


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
