"""A model folder written and opened again: what the probes see is what was trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lowdata_cpt.backbones import weights
from lowdata_cpt.backbones.adapters import AdapterHooks, adapter_config, make_adapters
from lowdata_cpt.backbones.vit import ViT
from tests.methods.harness import make_backbone, make_images


@torch.no_grad()
def test_an_exported_adapter_is_what_the_probes_see(tmp_path: Path) -> None:
    vit, x = make_backbone("test_vit", 32).eval(), make_images(2, 32)
    adapters, untouched = make_adapters(vit, 4, 0.1), vit(x).cls
    for adapter in adapters:
        torch.nn.init.normal_(adapter.up.bias)  # not a constant: the final LayerNorm would remove it
    config = adapter_config(vit, 4, 0.1)
    weights.save_export(tmp_path, "test_vit", vit.timm_state(), dict(adapters.state_dict()), config)
    AdapterHooks(vit, adapters)
    found = weights.open_export(tmp_path, 32)(x).cls
    torch.testing.assert_close(found, vit(x).cls, atol=1e-6, rtol=0)
    assert not torch.allclose(found, untouched, atol=1e-3)


@torch.no_grad()
def test_a_folder_without_an_adapter_is_the_backbone(tmp_path: Path) -> None:
    vit, x = make_backbone("test_vit", 32, seed=4).eval(), make_images(2, 32)
    weights.save_export(tmp_path, "test_vit", vit.timm_state(), {}, None)
    opened = weights.open_export(tmp_path, 32)
    assert torch.equal(opened(x).cls, vit(x).cls)
    assert not opened.training
    assert not any(parameter.requires_grad for parameter in opened.parameters())


@pytest.mark.parametrize(
    ("changed", "shared"),
    [
        ("blocks.2.mlp.fc1.weight", 2),
        ("blocks.0.norm1.bias", 0),
        ("pos_embed", 0),
        ("norm.weight", 6),
        (None, 6),
    ],
)
def test_the_blocks_that_models_have_in_common_are_found(tmp_path: Path, changed: str | None, shared: int) -> None:
    vit = ViT("test_vit", image_size=32)
    state = vit.timm_state()
    folders = [tmp_path / name for name in "abc"]
    for folder in folders[:2]:
        weights.save_export(folder, vit.name, state, {}, None)
    other = {name: value + (name == changed) for name, value in state.items()}
    weights.save_export(folders[2], vit.name, other, {}, None)
    assert vit.depth == 6
    assert weights.shared_blocks(folders) == shared
    assert weights.shared_blocks(folders[:1]) == 0


def test_models_with_adapters_have_no_block_in_common(tmp_path: Path) -> None:
    vit = ViT("test_vit", image_size=32)
    for name in "ab":
        weights.save_export(tmp_path / name, vit.name, vit.timm_state(), {"x": torch.zeros(1)}, {})
    assert weights.shared_blocks([tmp_path / "a", tmp_path / "b"]) == 0
