"""An exported folder is a model that timm opens, with the features that the probes used: every method, every family."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image

from lowdata_cpt.backbones import weights
from lowdata_cpt.backbones.opening import README, describe
from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.dev.scale_down import SMALLER
from lowdata_cpt.methods.registry import METHODS, by_name
from lowdata_cpt.study.config import Backbone
from tests.methods.harness import make_backbone, make_images, make_learner
from tests.methods.v_pretraining_setup import make_feedback

FAMILIES = {
    "DINO, DeiT": ("vit_tiny_patch16_224", 64),
    "DINOv2": ("vit_small_patch14_dinov2", 98),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", 56),
    "DINOv3": ("vit_small_patch16_dinov3.lvd1689m", 64),
    "MAE": ("vit_base_patch16_224.mae", 64),
}
TRAINED = [name for name, method in by_name().items() if method.learner_path]
ALL = [
    pytest.param(family, method, marks=() if fast else pytest.mark.slow)
    for family in FAMILIES
    for method in TRAINED
    for fast in [family == "DINO, DeiT" or (method == "diet_cp" and family != "MAE")]
]


def exported(folder: Path, family: str, method: str) -> tuple[ViT, int]:
    """Export a model as the training job does, its weights moved as by training; return it as the probes open it."""
    name, size = FAMILIES[family]
    (kind,) = (one for one in METHODS if one.model_fields["method"].default == method)
    config: Any = kind(**{key: value for key, value in SMALLER.items() if key in kind.model_fields})
    feedback = make_feedback(size=size) if config.needs_feedback else None
    learner = make_learner(config, make_backbone(name, size), feedback=feedback)
    with torch.no_grad():
        for parameter in learner.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    export = learner.export()
    weights.save_export(folder, name, export.backbone, export.adapter, export.adapter_config)
    describe(folder, name, size)
    return weights.open_export(folder, size), size


@pytest.mark.parametrize(("family", "method"), ALL)
@torch.no_grad()
def test_timm_opens_the_features_of_the_probes(family: str, method: str, tmp_path: Path) -> None:
    vit, size = exported(tmp_path / "i4", family, method)
    model: Any = timm.create_model(f"local-dir:{tmp_path / 'i4'}", pretrained=True).eval()
    if method == "glare":
        # Timm opens the backbone; the adapters are added by the README's second call.
        adapted, images = vit, make_images(2, size)
        facts = tmp_path / "i4" / "model.json"
        facts.write_text(facts.read_text().replace("true", "false"))
        vit = weights.open_export(tmp_path / "i4", size)
        assert not torch.allclose(adapted(images).cls, vit(images).cls, atol=1e-3)
    data = timm.data.resolve_model_data_config(model)
    assert tuple(data["input_size"]) == (3, size, size)
    assert (tuple(data["mean"]), tuple(data["std"])) == (vit.mean, vit.std)
    images = vit.normalise(make_images(2, size))
    expected = vit(images)
    tokens = model.forward_features(images)
    torch.testing.assert_close(tokens[:, 0], expected.cls, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tokens[:, vit.num_prefix_tokens :], expected.patches, atol=1e-5, rtol=1e-5)
    maps: Any = timm.create_model(f"local-dir:{tmp_path / 'i4'}", pretrained=True, features_only=True).eval()
    grid = vit.grid()
    assert maps(images)[-1].shape == (2, vit.width, grid, grid)


@torch.no_grad()
def test_another_size_is_interpolated_as_the_probes_do(tmp_path: Path) -> None:
    exported(tmp_path / "i4", "DINOv2", "diet_cp")
    larger = weights.open_export(tmp_path / "i4", 140)
    model: Any = timm.create_model(f"local-dir:{tmp_path / 'i4'}", pretrained=True).eval()
    images = make_images(1, 140)
    torch.testing.assert_close(model(images), larger(images).cls, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["diet_cp", "glare"])
def test_the_readme_runs(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vit, _ = exported(tmp_path / "i4", "DINO, DeiT", method)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (80, 60), "orange").save("image.jpg")
    snippets = re.findall(r"```python\n(.*?)```", (tmp_path / "i4" / README).read_text(), re.DOTALL)
    assert len(snippets) == (2 if method == "glare" else 1)
    scope: dict[str, Any] = {}
    for snippet in snippets:
        exec(snippet, scope)
    assert scope["features"].shape == (1, vit.width)
    if method == "glare":
        images = make_images(1, 64)
        torch.testing.assert_close(scope["model"](images), vit(images).cls)


def test_hybrids_are_refused_by_the_configuration() -> None:
    with pytest.raises(ValueError, match=r"vision_transformer_hybrid\); expected one of timm's plain ViTs"):
        Backbone.model_validate({"model": "vit_tiny_r_s16_p8_224", "weights": "random", "image_size": 64})
