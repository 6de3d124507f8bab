from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import ParallelScalingBlock
from torch import Tensor, nn

from lowdata_cpt.backbones import weights
from lowdata_cpt.backbones.adapters import (
    AdapterHooks,
    UniAdapter,
    adapter_config,
    attach,
    make_adapters,
)
from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.core.errors import UserError
from tests.methods.harness import BACKBONES, make_backbone


def trained(vit: ViT, rank: int = 4) -> nn.ModuleList:
    """Adapters that do something."""
    adapters = make_adapters(vit, rank, 0.1)
    for adapter in adapters:
        nn.init.normal_(adapter.up.weight)
        nn.init.normal_(adapter.up.bias)
    return adapters


def exported(vit: ViT) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return dict(trained(vit).state_dict()), adapter_config(vit, 4, 0.1)


def test_size_and_start() -> None:
    """Twelve adapters of ViT-S with rank 64 have .60 M parameters (methods' source) and start at zero."""
    adapters = nn.ModuleList(UniAdapter(384, 64, 0.1) for _ in range(12))
    assert sum(p.numel() for p in adapters.parameters()) == 604_416
    assert torch.equal(adapters[0](torch.randn(2, 3, 384)), torch.zeros(2, 3, 384))
    assert adapters[0].down.weight.abs().max() <= 384**-0.5
    assert adapters[0].down.weight.std() > 0


def test_equation() -> None:
    adapter = UniAdapter(6, 3, 0.1)
    nn.init.normal_(adapter.up.weight)
    x = torch.randn(2, 5, 6)
    hidden = torch.relu(nn.functional.layer_norm(x, (6,)) @ adapter.down.weight.T)
    torch.testing.assert_close(adapter(x), 0.1 * (hidden @ adapter.up.weight.T))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["registers", "rope", "plain"])
def test_identity_bit_for_bit(kind: str) -> None:
    name, size = BACKBONES[kind]
    vit, x = make_backbone(name, size).eval(), torch.randn(2, 3, size, size)
    before = vit(x)
    with torch.autocast("cpu", torch.bfloat16):
        before_bf16 = vit(x)
    AdapterHooks(vit, make_adapters(vit, 8, 0.1))
    with torch.autocast("cpu", torch.bfloat16):
        after_bf16 = vit(x)
    for old, new in zip((*before, *before_bf16), (*vit(x), *after_bf16), strict=True):
        assert torch.equal(old, new)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["registers", "rope", "plain"])
def test_the_adapter_reads_the_residual_after_attention(kind: str) -> None:
    """out = x + MLP(LN₂x) + .1·A(x) with x = x + Attn(LN₁x), against the block with its MLP silenced."""
    name, size = BACKBONES[kind]
    vit = make_backbone(name, size).eval()
    tokens, rope = vit.embed(torch.randn(2, 3, size, size))
    plain = vit.run_block(0, tokens, rope)
    seen: list[Tensor] = []
    handle = vit.blocks[0].norm2.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    vit.run_block(0, tokens, rope)
    handle.remove()
    adapters = trained(vit)
    AdapterHooks(vit, adapters)
    torch.testing.assert_close(vit.run_block(0, tokens, rope), plain + adapters[0](seen[0]))
    assert not torch.equal(seen[0], tokens)


@torch.no_grad()
def test_hooks_switch_between_sets_and_off() -> None:
    vit, x = make_backbone("test_vit", 32).eval(), torch.randn(2, 3, 32, 32)
    untouched = vit(x).cls
    one, two = trained(vit), trained(vit)
    hooks = AdapterHooks(vit, one)
    first = vit(x).cls
    with hooks.using(two):
        second = vit(x).cls
        with hooks.using(None):
            assert torch.equal(vit(x).cls, untouched)
        assert torch.equal(vit(x).cls, second)
    assert torch.equal(vit(x).cls, first)
    assert not torch.equal(first, second)
    assert not torch.equal(first, untouched)


def test_hooks_switch_back_after_an_error() -> None:
    vit = make_backbone("test_vit", 32)
    one = trained(vit)
    hooks = AdapterHooks(vit, one)

    def fail() -> None:
        with hooks.using(None):
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert [hook.adapter for hook in hooks.blocks] == list(one)


@torch.no_grad()
def test_a_deep_copy_has_adapters_of_its_own() -> None:
    vit, x = make_backbone("test_vit", 32).eval(), torch.randn(2, 3, 32, 32)
    attach(vit, *exported(vit))
    before = vit(x).cls
    twin = copy.deepcopy(vit)
    assert torch.equal(twin(x).cls, before)
    for parameter in twin.adapters.parameters():
        parameter.zero_()
    assert torch.equal(vit(x).cls, before)
    assert not torch.equal(twin(x).cls, before)


def test_compiled_blocks_give_the_same_and_follow_a_switch() -> None:
    """`eager` traces as the real backends do, without needing a C++ compiler."""
    vit, x = make_backbone("test_vit", 32).eval(), torch.randn(2, 3, 32, 32)
    one, two = trained(vit), trained(vit)
    hooks = AdapterHooks(vit, one)
    first = vit(x).cls
    with hooks.using(two):
        second = vit(x).cls
    for block in vit.blocks:
        block.compile(backend="eager")
    torch.testing.assert_close(vit(x).cls, first)
    with hooks.using(two):
        torch.testing.assert_close(vit(x).cls, second)
    torch.testing.assert_close(vit(x).cls, first)


@torch.no_grad()
def test_load_adapted_equals_attach(tmp_path: Path) -> None:
    vit, x = make_backbone("test_vit", 32).eval(), torch.randn(2, 3, 32, 32)
    state = vit.timm_state()
    tensors, config = exported(vit)
    weights.save_export(tmp_path, vit.name, state, tensors, config)
    untouched = vit(x).cls
    attach(vit, tensors, config)
    assert vit.timm_state().keys() == state.keys()
    loaded = weights.open_export(tmp_path, vit.image_size)
    torch.testing.assert_close(loaded(x), vit(x), atol=1e-6, rtol=0)
    assert not torch.allclose(loaded(x).cls, untouched)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    (tmp_path / "adapter.json").write_text("[1]")
    with pytest.raises(UserError, match="expected an object"):
        weights.open_export(tmp_path, vit.image_size)
    (tmp_path / "adapter.safetensors").unlink()
    with pytest.raises(UserError, match=r"adapter\.safetensors"):
        weights.open_export(tmp_path, vit.image_size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "lora"}, "kind is 'lora'; expected 'uniadapter'"),
        ({"model": "vit_tiny_patch16_224"}, "model is 'vit_tiny_patch16_224'"),
        ({"depth": 5}, "depth is 5"),
        ({"rank": None}, "rank and scale are None"),
        ({"rank": 8}, "do not fit rank 8"),
    ],
)
def test_a_wrong_adapter_is_refused(change: dict[str, Any], message: str) -> None:
    vit = make_backbone("test_vit", 32)
    tensors, config = exported(vit)
    with pytest.raises(UserError, match=message):
        attach(vit, tensors, config | change)


def test_adapting_twice_is_refused() -> None:
    vit = make_backbone("test_vit", 32)
    attach(vit, *exported(vit))
    with pytest.raises(UserError, match="already"):
        attach(vit, *exported(vit))


def test_blocks_without_a_pre_norm_are_refused() -> None:
    vit = make_backbone("test_vit", 32)
    vit.blocks[1] = ParallelScalingBlock(vit.width, vit.num_heads)
    with pytest.raises(UserError, match="ParallelScalingBlock"):
        AdapterHooks(vit)
