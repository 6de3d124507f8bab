"""`lowdata-cpt init`: what it says of a folder, and that what it writes is a valid study with the labels it found."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.layouts.image_folder import ImageFolder
from lowdata_cpt.jobs import init as job
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.load import load
from tests.data.own import cracks, fields, noise, rgbd, write


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def started(folder: Path) -> tuple[str, Study, ImageFolder]:
    said = job.init(folder, Path("mine.yaml"))
    study = load("mine.yaml")
    domain = study.domains["imagefolder"]
    assert isinstance(domain, ImageFolder)
    return said, study, domain


def pets(folder: Path) -> Path:
    for i in range(30):
        write(folder / f"{'cat' if i % 2 else 'dog'}/{i}.png", noise(i))
    return folder


def test_class_folders_with_a_copy_and_a_broken_file(tmp_path: Path) -> None:
    folder = pets(tmp_path / "My Pets!")
    (folder / "cat/broken.png").write_bytes(b"x")
    shutil.copy(folder / "cat/1.png", folder / "cat/copy.png")
    said, study, domain = started(folder)
    assert study.study == "mine"
    assert set(study.methods) == {"base", "base_domain_norm", "diet_cp"}
    assert study.training_of("diet_cp").epochs == 150
    assert domain.sizes == (18,)
    assert "32 images, 40×30" in said
    assert "splits: train 18, val 6, test 6\n6 test images are few" in said
    assert "classification, 2 classes (cat, dog)" in said
    assert "1 × not an image that Pillow can read (for one, cat/broken.png)" in said
    assert "1 × left out: an exact copy (for one, cat/copy.png)" in said
    assert "forecast: " in said


def test_masks_beside_the_images(tmp_path: Path) -> None:
    said, _, domain = started(cracks(tmp_path / "roads"))
    assert domain.masks is not None
    assert domain.masks.classes == ("background", "foreground")
    assert "| 255 | foreground | 12 | 7.5 % |" in said


def test_colours_in_split_folders(tmp_path: Path) -> None:
    _, study, domain = started(fields(tmp_path / "crops"))
    assert domain.masks is not None
    assert list(dict(domain.masks.classes or {}).values()) == [(0, 0, 0), (0, 255, 0), (255, 0, 0), (255, 255, 255)]
    assert study.domains["imagefolder"].sizes == (6,)


def test_depth_and_a_csv_of_classes(tmp_path: Path) -> None:
    said, _, domain = started(rgbd(tmp_path / "rooms"))
    assert (domain.depth and domain.depth.scale, domain.labels) == (0.001, "labels.csv")
    assert "12 depth maps: 0.948 to 3.55 m" in said
    assert "taken as millimetres: check it" in Path("mine.yaml").read_text()


def test_values_with_255_a_suffix_and_float_depth(tmp_path: Path) -> None:
    folder = cracks(tmp_path / "roads")
    for i, path in enumerate(sorted((folder / "masks").iterdir())):
        ids = np.asarray(Image.open(path)) // 255 * 2
        ids[:3] = 255
        path.unlink()
        write(path.with_name(f"{path.stem}_mask.png"), ids)
        (folder / "depth").mkdir(exist_ok=True)
        np.save(folder / "depth" / f"{path.stem}.npy", np.full(ids.shape, 2.0 + i), allow_pickle=False)
    _, _, domain = started(folder)
    assert domain.masks is not None
    assert domain.masks.model_dump(mode="json") == {
        "folder": "masks",
        "suffix": "_mask",
        "classes": {"class_0": 0, "class_2": 2},
        "ignore": [255],
    }
    assert domain.depth is not None
    assert (domain.depth.scale, domain.depth.suffix) == (None, "")


def test_masks_that_were_saved_with_loss_are_no_masks(tmp_path: Path) -> None:
    folder = cracks(tmp_path / "roads")
    for i, path in enumerate(sorted((folder / "masks").iterdir())):
        write(path, noise(i))
    assert "masks" not in job.guess(folder)[0]


def test_images_alone_are_trained_on(tmp_path: Path) -> None:
    for i in range(120):
        write(tmp_path / "plain" / f"{i}.png", noise(i)[:8, :8])
    said, _, domain = started(tmp_path / "plain")
    assert domain.sizes == (100,)
    assert "no labels: the images are trained on and not scored" in said


def test_a_csv_that_is_not_taken_for_labels_is_named_with_the_reason(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets")
    (folder / "a.csv").write_text("file;class\n1.png;cat\n")
    (folder / "b.csv").write_bytes("file,class\nä.png,cat\n".encode("utf-16"))
    said, _, domain = started(folder)
    assert domain.labels == "folders"
    assert f"no classes are read from {folder}/a.csv: the columns are ['file;class']; expected file,class" in said
    assert f"no classes are read from {folder}/b.csv: not a readable CSV file" in said


def test_one_image_is_nothing_to_train_on(tmp_path: Path) -> None:
    write(tmp_path / "plain/0.png", noise(0))
    with pytest.raises(UserError, match="plain: 1 image to train on; expected two or more"):
        job.init(tmp_path / "plain", tmp_path / "new.yaml")
    assert not (tmp_path / "new.yaml").exists()


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder"):
        job.init(tmp_path / "nowhere", tmp_path / "new.yaml")
    folder = pets(tmp_path / "pets")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({}))
    with pytest.raises(UserError, match=r"mine.yaml: exists; delete it"):
        job.init(folder, tmp_path / "mine.yaml")
    Path("results/walks").mkdir(parents=True)
    with pytest.raises(UserError, match=r"results/walks: exists"):
        job.init(folder, tmp_path / "Walks.yaml")


def test_home_is_understood_in_both_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    pets(tmp_path / "pets")
    job.init(Path("~/pets"), Path("~/new.yaml"))
    assert load(tmp_path / "new.yaml").study == "new"


@pytest.mark.parametrize("name", ["2024", "no", "x" * 90])
def test_any_name_of_a_file_is_a_name_of_a_study(name: str, tmp_path: Path) -> None:
    job.init(pets(tmp_path / "pets"), tmp_path / f"{name}.yaml")
    assert load(tmp_path / f"{name}.yaml").study == name[:64]
