"""The Python call: a folder of images in, a timm model out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.dev.fixtures import picture, save
from lowdata_cpt.jobs.api import continue_pretraining

BACKBONE = {"model": "vit_tiny_patch16_224", "weights": "random", "image_size": 32}
SHORT = {"training": {"epochs": 2, "batch_size": 4}}


def folder_of_images(root: Path) -> Path:
    for seed in range(6):
        save(root / f"{seed}.png", picture(torch.full((40, 40), seed).numpy(), seed))
    return root


@pytest.mark.parametrize("method", ["diet_cp", "glare"])
def test_a_folder_of_images_gives_a_model_that_timm_opens(method: str, tmp_path: Path) -> None:
    images, out = folder_of_images(tmp_path / "images"), tmp_path / "out"
    model = continue_pretraining(images, out, method=method, backbone=BACKBONE, settings=SHORT, device="cpu")
    (weights,) = out.glob("cells/**/export/i12/model.safetensors")
    opened = timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True, checkpoint_path=str(weights)
    )
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, plain = model(x), opened.eval()(x)
    assert not model.training
    # GLARE's adapters are attached to the model; its export is the untouched backbone with the adapters beside it.
    assert torch.allclose(features, plain, atol=1e-5) == (method == "diet_cp")


def test_what_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown"):
        continue_pretraining(folder_of_images(tmp_path / "i"), tmp_path / "o", method="unknown", backbone=BACKBONE)
    with pytest.raises(UserError, match="nowhere"):
        continue_pretraining(tmp_path / "nowhere", tmp_path / "o", backbone=BACKBONE)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"device": "cpuu"}, "device is 'cpuu'; expected one of auto, cpu, cuda"),
        ({"images": ""}, "images is ''; expected the path of a folder"),
        ({"images": "a\0b"}, "images is 'a.x00b'; expected the path of a folder"),
        ({"images": None}, "images is None; expected the path of a folder"),
        ({"images": "one"}, "sizes ask for 2 images; .*one has 1"),
        ({"images": "labelled"}, "labelled/masks is called like a folder of label files"),
        ({"out": ""}, "out is ''; expected the path of a folder"),
        ({"out": "taken"}, "out: taken is a file; expected a folder"),
        ({"backbone": {}}, "backbones.backbone.model: required key is missing"),
        ({"backbone": BACKBONE | {"weights": "file:absent"}}, "backbones.backbone.weights: absent is no file"),
        ({"method": "base"}, "method 'base' trains nothing; expected one that does"),
        ({"method": "random"}, "method 'random' trains nothing; expected one that does"),
        ({"seed": 1.5}, "seeds.0"),
        ({"seed": True}, "seeds.0"),
        ({"seed": -1}, "seeds.0"),
    ],
    ids=str,
)
def test_an_argument_that_cannot_be_used_is_refused_before_anything_is_decoded(
    change: dict[str, Any], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of_images(Path("images"))
    folder_of_images(Path("labelled"))
    folder_of_images(Path("labelled/masks"))
    save(Path("one/0.png"), picture(torch.zeros(40, 40).numpy(), 0))
    Path("taken").write_text("")
    there = sorted(tmp_path.rglob("*"))
    arguments: dict[str, Any] = {"images": "images", "out": "out", "backbone": BACKBONE, "settings": SHORT}
    with pytest.raises(UserError, match=expected):
        continue_pretraining(**(arguments | {"device": "cpu"} | change))
    assert sorted(tmp_path.rglob("*")) == there


def test_home_and_a_seed_of_numpy_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder_of_images(tmp_path / "mine")
    settings = {"training": {"epochs": 1, "batch_size": 4}}
    continue_pretraining("~/mine", "~/out", backbone=BACKBONE, settings=settings, seed=np.int64(3), device="cpu")
    assert list((tmp_path / "out").glob("cells/*/*/*/n6/s3/cost.json"))


def test_other_images_in_the_same_place_are_trained_on(tmp_path: Path) -> None:
    first, out = folder_of_images(tmp_path / "first"), tmp_path / "out"
    continue_pretraining(first, out, backbone=BACKBONE, settings=SHORT, device="cpu")
    second = folder_of_images(tmp_path / "second")
    save(second / "more.png", picture(torch.full((40, 40), 9).numpy(), 9))
    wider = BACKBONE | {"model": "vit_small_patch16_224"}
    model = continue_pretraining(second, out, backbone=wider, settings=SHORT, device="cpu")
    assert model.embed_dim == 384
    (cell,) = out.glob("cells/*/*/*/n7/*")
    assert json.loads((cell / "cost.json").read_text())["images_seen"] == 14
    (subset,) = out.glob("subsets/*/*/n7.csv")
    assert "more.png" in subset.read_text()
