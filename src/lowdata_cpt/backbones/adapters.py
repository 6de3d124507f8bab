"""UniAdapter in a frozen ViT: x ← x + Attn(LN₁x); out = x + MLP(LN₂x) + 0.1·A(x), with A = up(ReLU(down(LN x))).

A reads the residual x before LN₂, so it cannot be folded into the MLP. It is added by hooks on timm's own blocks:
one before `norm2`, which sees x, and one after the block. The backbone's code, weights and state dict stay timm's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.core.errors import UserError


class UniAdapter(nn.Module):
    """A(x), scaled: LN, Linear D→r, ReLU, Linear r→D. Zero at the start, since `up` is.

    Args:
        width: D.
        rank: r.
        scale: factor on the output; .1 in the authors' code of UniAdapter.
    """

    def __init__(self, width: int, rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, rank)
        self.up = nn.Linear(rank, width)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """Return scale · A(x) of residuals [B, T, D]."""
        update: Tensor = self.up(F.relu(self.down(self.norm(x))))
        return self.scale * update


def make_adapters(vit: ViT, rank: int, scale: float) -> nn.ModuleList:
    """Return one `UniAdapter` per block of `vit`."""
    return nn.ModuleList(UniAdapter(vit.width, rank, scale) for _ in range(vit.depth))


class _BlockHook:
    """The two hooks of one block. Bound methods, so that a deep copy of the ViT gets hooks of its own."""

    def __init__(self) -> None:
        self.adapter: nn.Module | None = None
        self.residual: Tensor | None = None

    def read(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if self.adapter is not None:
            self.residual = args[0]

    def add(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if self.adapter is None or self.residual is None:
            return output
        residual, self.residual = self.residual, None
        update: Tensor = self.adapter(residual)
        return output + update


class AdapterHooks:
    """Hooks that run a ViT with a set of adapters, or untouched with None.

    Base and momentum encoder are one ViT with two sets of adapters: the frozen weights exist once.

    Raises:
        UserError: a block is not a pre-norm block of timm (`Block` or `EvaBlock`).
    """

    def __init__(self, vit: ViT, adapters: nn.ModuleList | None = None) -> None:
        self.blocks: list[_BlockHook] = []
        block: Any
        for block in vit.blocks:
            if type(block) not in (Block, EvaBlock):
                raise UserError(
                    f"backbone {vit.name!r} has blocks of type {type(block).__name__}; "
                    "adapters need timm's pre-norm Block or EvaBlock"
                )
            hook = _BlockHook()
            block.norm2.register_forward_pre_hook(hook.read)
            block.register_forward_hook(hook.add)
            self.blocks.append(hook)
        self.use(adapters)

    def use(self, adapters: nn.ModuleList | None) -> None:
        """Run with these adapters, one per block, from now on; with none when None."""
        for i, hook in enumerate(self.blocks):
            hook.adapter = None if adapters is None else adapters[i]

    @contextmanager
    def using(self, adapters: nn.ModuleList | None) -> Iterator[None]:
        """Run with other adapters (the teacher's), or with none, inside the context."""
        before = [hook.adapter for hook in self.blocks]
        self.use(adapters)
        try:
            yield
        finally:
            for hook, adapter in zip(self.blocks, before, strict=True):
                hook.adapter = adapter


def adapter_config(vit: ViT, rank: int, scale: float) -> dict[str, Any]:
    """Return what `attach` needs besides the tensors; plain JSON values."""
    return {
        "kind": "uniadapter",
        "model": vit.name,
        "image_size": vit.image_size,
        "width": vit.width,
        "depth": vit.depth,
        "rank": rank,
        "scale": scale,
    }


def attach(vit: ViT, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Turn `vit` into the adapted backbone that was exported: add frozen adapters as `vit.adapters`, with hooks.

    Args:
        vit: the untouched backbone; its own state dict (`vit.timm_state()`) does not change.
        tensors: `Export.adapter`.
        config: `Export.adapter_config`.

    Raises:
        UserError: the config is not a UniAdapter's, does not fit this backbone or the tensors, or `vit` is adapted.
    """
    if not isinstance(config, dict):
        raise UserError("adapter.json: expected an object with model, width, depth, rank, scale")
    if hasattr(vit, "adapters"):
        raise UserError(f"backbone {vit.name!r} has adapters already; attach them to an untouched one")
    for key, expected in (("kind", "uniadapter"), ("model", vit.name), ("width", vit.width), ("depth", vit.depth)):
        if config.get(key) != expected:
            raise UserError(f"adapter config: {key} is {config.get(key)!r}; expected {expected!r}")
    rank, scale = config.get("rank"), config.get("scale")
    if not isinstance(rank, int) or not isinstance(scale, int | float) or rank < 1:
        raise UserError(f"adapter config: rank and scale are {rank!r} and {scale!r}; expected two positive numbers")
    adapters = make_adapters(vit, rank, scale)
    try:
        adapters.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"adapter tensors do not fit rank {rank} and {vit.depth} blocks: {reason}") from None
    device = next(vit.parameters()).device
    vit.adapters = adapters.requires_grad_(False).to(device)
    AdapterHooks(vit, adapters)
