"""What a study needs of the machine: each absence is a line, before anything is computed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import save_file

from lowdata_cpt.cli import cli
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.study import checks
from lowdata_cpt.study.load import validate
from tests.study.test_values import STUDY, with_value


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the study's data: one image of camvid, three of the user's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOWDATA_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("camvid/a.png", "mine/a.png", "mine/b.png", "mine/c.png"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def said(path: str, value: Any) -> list[str]:
    return checks.absences(validate(with_value(path, value)))


def test_a_study_whose_data_are_here_lacks_nothing(here: Path) -> None:
    assert checks.absences(validate(STUDY)) == []


def test_a_root_that_is_missing_or_a_file_is_refused(here: Path) -> None:
    (here / "data/plain").write_text("")
    assert said("domains.camvid.root", "plain") == ["domains.camvid.root: data/plain is a file; expected a folder"]
    (missing,) = said("domains.camvid.root", "elsewhere")
    assert missing.startswith("domains.camvid.root: no data in data/elsewhere; expected")
    skipping = with_value("domains.camvid.root", "elsewhere") | {"absent_data": "skip"}
    assert checks.absences(validate(skipping)) == []
    decoded = here / "results/senseless/data/camvid/manifest.json"
    decoded.parent.mkdir(parents=True)
    decoded.write_text("{}")
    assert said("domains.camvid.root", "elsewhere") == []


@pytest.mark.parametrize("path", ["domains.camvid.root", "domains.imagefolder.root", "backbones.tiny.weights"])
def test_a_name_that_no_file_system_takes_is_named_by_its_key(path: str, here: Path) -> None:
    (line,) = said(path, ("file:" if path.endswith("weights") else "") + "x" * 3000)
    assert line.startswith(path)
    assert "File name too long" in line
    assert len(line) < 300


def test_sizes_above_the_images_of_a_folder_are_refused(here: Path) -> None:
    assert said("domains.imagefolder.sizes", [3]) == []
    assert said("domains.imagefolder.sizes", [4]) == ["domains.imagefolder.sizes ask for 4 images; data/mine has 3"]


def test_sizes_are_held_to_what_the_split_leaves_to_train_on(here: Path) -> None:
    """Where there are labels, validation and test images are no images to train on; no file is opened."""
    labelled = {"root": "kinds", "sizes": [12]}
    for name in (f"{kind}/{i}.png" for kind in ("a", "b") for i in range(10)):
        path = here / "data/kinds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert said("domains.imagefolder", labelled) == []
    (line,) = said("domains.imagefolder", labelled | {"sizes": [13]})
    assert line == "domains.imagefolder.sizes ask for 13 images; data/kinds has 20, 12 of them to train on"
    (line,) = said("domains.imagefolder", labelled | {"val_images": 16})
    assert line.startswith("domains.imagefolder: 16 and 4 images for validation and testing leave none of 20")
    assert said("domains.imagefolder", labelled | {"labels": "none", "sizes": [20]}) == []
    manifest = here / "results/senseless/data/imagefolder/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    assert len(said("domains.imagefolder", labelled | {"sizes": [13]})) == 1  # decoded for fewer
    assert said("domains.imagefolder", labelled | {"root": "gone", "sizes": [13]}) == []


def test_a_weights_file_is_there_and_is_safetensors(here: Path) -> None:
    save_file({"x": torch.zeros(1)}, here / "good.safetensors")
    torch.save({"x": torch.zeros(1)}, here / "old.pth")
    assert said("backbones.tiny.weights", "file:good.safetensors") == []
    (missing,) = said("backbones.tiny.weights", "file:none.safetensors")
    assert missing == "backbones.tiny.weights: none.safetensors is no file; expected timm's state dict as safetensors"
    (old,) = said("backbones.tiny.weights", "file:old.pth")
    assert "old.pth is not safetensors" in old
    assert "save_file" in old


def test_a_backbone_of_the_hub_is_cached_or_the_hub_can_be_asked(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (line,) = said("backbones.tiny.weights", "timm")
    assert "HF_HUB_OFFLINE is set; expected a network, `file:<safetensors>`, or `embedded:imgfocus`" in line
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    (line,) = said("backbones.tiny.weights", "timm")
    assert "http://127.0.0.1:9 cannot be reached" in line
    file = here / "hub/models--timm--vit_tiny_patch16_224.augreg_in21k/snapshots/0/model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert said("backbones.tiny.weights", "timm") == []
    assert time.monotonic() - started < checks.HUB_SECONDS


def test_validate_looks_at_the_machine_too(here: Path) -> None:
    Path("study.yaml").write_text(yaml.safe_dump(with_value("domains.camvid.root", "elsewhere")))
    result = CliRunner().invoke(cli, ["validate", "study.yaml"])
    assert isinstance(result.exception, UserError)
    assert "domains.camvid.root: no data" in str(result.exception)
