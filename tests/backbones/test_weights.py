"""A model folder written and opened again: what the probes see is what was trained."""

from __future__ import annotations

from pathlib import Path

import torch

from lowdata_cpt.backbones import weights
from lowdata_cpt.backbones.adapters import AdapterHooks, adapter_config, make_adapters
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
