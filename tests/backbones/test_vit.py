from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn

from lowdata_cpt.backbones import weights
from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.core.errors import UserError
from tests.methods.harness import BACKBONES, make_backbone, make_images

MORE = BACKBONES | {
    "clip": ("vit_base_patch16_clip_224", 32),
    "rope_mixed": ("vit_small_patch16_rope_mixed_224", 32),
}


@pytest.mark.parametrize("name", MORE)
def test_features_are_timms_own(name: str) -> None:
    vit = make_backbone(*MORE[name]).eval()
    x = make_images(2, MORE[name][1])
    with torch.no_grad():
        ours, theirs = vit(x), vit.model.forward_features(x)
    torch.testing.assert_close(ours.cls, theirs[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.patches, theirs[:, vit.num_prefix_tokens :], atol=1e-5, rtol=1e-5)
    assert ours.patches.shape == (2, vit.grid() ** 2, vit.width)


@pytest.mark.parametrize("name", MORE)
def test_kept_tokens_are_the_same_tokens_as_without_masking(name: str) -> None:
    """Keeping all patches in another order only reorders the output: positions travel with their patches."""
    vit = make_backbone(*MORE[name]).eval()
    x = make_images(2, MORE[name][1])
    order = torch.stack([torch.randperm(vit.grid() ** 2) for _ in range(2)])
    with torch.no_grad():
        whole, shuffled = vit(x), vit(x, keep=order)
    expected = whole.patches.gather(1, order.unsqueeze(-1).expand_as(whole.patches))
    torch.testing.assert_close(shuffled.patches, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shuffled.cls, whole.cls, atol=1e-4, rtol=1e-4)


def test_blocks_are_saved_once() -> None:
    vit = make_backbone("vit_tiny_patch16_224", 32)
    assert {key.split(".")[0] for key in vit.state_dict()} == {"model"}


def test_geometry_comes_from_the_model() -> None:
    vit = ViT("vit_small_patch14_reg4_dinov2", image_size=56)
    assert (vit.patch_size, vit.width, vit.depth, vit.num_heads, vit.num_prefix_tokens) == (14, 384, 12, 6, 5)
    rope = ViT("vit_small_patch16_dinov3", image_size=64)
    assert (rope.patch_size, rope.num_prefix_tokens) == (16, 5)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("resnet18", 224, "resnet18"),
        ("vit_of_dreams", 224, "vit_of_dreams"),
        ("vit_tiny_patch16_224", 100, "not a multiple of the patch size 16"),
    ],
)
def test_what_is_no_vit_of_that_size_is_named(name: str, size: int, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        ViT(name, image_size=size)


def test_a_random_network_depends_on_its_seed_alone() -> None:
    vit = ViT("vit_tiny_patch16_224", image_size=32)
    vit.randomise(1)
    first = {k: v.clone() for k, v in vit.model.state_dict().items()}
    torch.rand(3)
    vit.randomise(1)
    assert all(torch.equal(v, first[k]) for k, v in vit.model.state_dict().items())
    vit.randomise(2)
    assert not torch.equal(vit.model.state_dict()["blocks.0.attn.qkv.weight"], first["blocks.0.attn.qkv.weight"])


def test_weights_from_a_file_are_checked(tmp_path) -> None:
    vit = ViT("vit_tiny_patch16_224", image_size=32)
    weights.write_tensors(tmp_path / "w.safetensors", vit.timm_state())
    file = f"file:{tmp_path / 'w.safetensors'}"
    opened = weights.obtain("vit_tiny_patch16_224", file, None, 32, tmp_path)
    assert all(torch.equal(v, vit.model.state_dict()[k]) for k, v in opened.model.state_dict().items())
    with pytest.raises(UserError, match="sha256"):
        weights.obtain("vit_tiny_patch16_224", file, "0" * 64, 32, tmp_path)
    with pytest.raises(UserError, match="do not fit"):
        weights.obtain("vit_small_patch16_224", file, None, 32, tmp_path)
    with pytest.raises(UserError, match="no such file"):
        weights.obtain("vit_tiny_patch16_224", "file:absent.safetensors", None, 32, tmp_path)


def test_a_model_that_norms_behind_its_pooling_gives_its_own_features() -> None:
    torch.manual_seed(0)
    vit = ViT("eva02_base_patch14_224", image_size=56).eval()
    assert isinstance(vit.model.norm, torch.nn.Identity)
    x = make_images(2, 56)
    with torch.no_grad():
        ours = vit(x)
        torch.testing.assert_close(ours.cls, vit.model(x), atol=1e-5, rtol=1e-5)
    assert ours.patches.std(-1).mean() == pytest.approx(1, abs=0.01)


def released(tmp_path: Path, **changed: torch.Tensor | None) -> tuple[ViT, ViT]:
    """Return test_vit, and the same opened from a file of its weights of which some are `changed`."""
    vit = ViT("test_vit", image_size=32)
    state = {name: value for name, value in (vit.timm_state() | changed).items() if value is not None}
    weights.write_tensors(tmp_path / "w.safetensors", state)
    return vit, weights.obtain("test_vit", f"file:{tmp_path / 'w.safetensors'}", None, 32, tmp_path)


def test_a_classifiers_head_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vit, opened = released(tmp_path, **{"head.weight": torch.ones(10, 64), "head.bias": torch.ones(10)})
    assert all(torch.equal(value, opened.timm_state()[name]) for name, value in vit.timm_state().items())
    assert capsys.readouterr().out.count("head.bias, head.weight of the classifier are left out") == 1


def test_a_position_grid_of_another_size_is_resampled_as_timm_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = timm.create_model("test_vit", num_classes=0, img_size=224)
    torch.nn.init.normal_(other.pos_embed)
    vit, opened = released(tmp_path, pos_embed=other.pos_embed.detach())
    expected = checkpoint_filter_fn({"pos_embed": other.pos_embed.detach()}, vit.model)["pos_embed"]
    assert torch.equal(opened.model.pos_embed, expected)
    assert other.pos_embed.shape != expected.shape
    assert "grid of 14 × 14 is resampled to 10 × 10" in capsys.readouterr().out


def test_half_precision_becomes_float32(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = ViT("test_vit", image_size=32).timm_state()["norm.weight"].half()
    _, opened = released(tmp_path, **{"norm.weight": half})
    assert opened.timm_state()["norm.weight"].dtype == torch.float32
    assert "torch.float16 becomes float32" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.full((64,), float("nan")), "norm.weight' holds values that are not finite"),
        (torch.full((64,), float("inf")), "norm.weight' holds values that are not finite"),
        (torch.ones(64, dtype=torch.int32), "norm.weight' is of type torch.int32"),
        (torch.ones(65), "do not fit"),
        (None, "do not fit"),
    ],
)
def test_weights_that_cannot_be_meant_are_one_sentence(value: torch.Tensor | None, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as caught:
        released(tmp_path, **{"norm.weight": value})
    assert "\n" not in str(caught.value)
