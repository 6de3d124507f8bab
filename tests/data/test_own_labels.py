"""Masks, depth maps, a CSV of classes and groups beside the user's own images, by configuration alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from pydantic import ValidationError

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.layouts.grouping import Grouping, cut_groups
from lowdata_cpt.data.layouts.image_folder import FOUND, ImageFolder
from lowdata_cpt.data.layouts.label_files import ORIENTATION, turned
from lowdata_cpt.data.store import GROUPS
from tests.data.own import (
    BINARY,
    COLOURS,
    CROP,
    MILLIMETRES,
    SIDE,
    cracks,
    fields,
    ids,
    listed,
    noise,
    opened,
    rgbd,
    write,
)


def test_binary_masks_lie_on_their_pixels(tmp_path: Path) -> None:
    store = opened(cracks(tmp_path / "d"), masks=BINARY)
    assert store.task("segmentation").classes == ("road", "crack")
    assert {split: len(rows) for split, rows in ids(store).items()} == {"train": 8, "val": 2, "test": 2}
    images, masks = store.images("train"), store.segmentation("train")
    assert set(np.unique(masks)) == {0, 1}
    assert images[masks == 1].min() > 100 > images[masks == 0].max()
    found = (store.root / FOUND).read_text()
    assert "12 masks" in found
    assert "| 0 | road | 12 | 92.5 % |" in found
    assert "| 255 | crack | 12 | 7.5 % |" in found


@pytest.mark.parametrize("kind", ["L", "1", "P", "RGB", "RGBA", "I;16"])
def test_the_same_mask_in_other_modes(kind: str, tmp_path: Path) -> None:
    """Binary masks of one bit, of palette indices, of 16 bits, and grey ones that were saved as RGB."""
    expected = opened(cracks(tmp_path / "grey"), masks=BINARY)
    folder = cracks(tmp_path / "d")
    for path in (folder / "masks").iterdir():
        mask = np.asarray(Image.open(path))
        if kind == "P":
            image = Image.fromarray(mask // 255, "P")
            image.putpalette([200, 10, 10, 10, 200, 10])
        elif kind == "I;16":
            image = Image.fromarray((mask // 255).astype(np.uint16))
        else:
            image = Image.fromarray(mask).convert(kind)
        image.save(path)
    store = opened(folder, masks=BINARY)
    for split in ("train", "val", "test"):
        assert np.array_equal(store.segmentation(split), expected.segmentation(split))


def test_without_names_every_value_is_a_class(tmp_path: Path) -> None:
    assert opened(cracks(tmp_path / "d"), masks={}).task("segmentation").classes == ("0", "255")
    store = opened(cracks(tmp_path / "e"), masks={"classes": {"crack": 255, "road": 0}})
    assert store.task("segmentation").classes == ("crack", "road")
    assert (store.segmentation("test") == 0).mean() < 0.2


def test_colour_masks_in_split_folders(tmp_path: Path) -> None:
    store = opened(fields(tmp_path / "d"), masks=COLOURS)
    assert {split: len(rows) for split, rows in ids(store).items()} == {"train": 6, "val": 2, "test": 3}
    images, masks = store.images("test"), store.segmentation("test")
    assert set(np.unique(masks)) == {0, 1, 2, 255}
    assert images[masks == 1][:, 1].min() > 100
    assert images[masks == 2][:, 0].min() > 100
    assert images[masks == 0].max() < 100
    assert "| #00ff00 | crop | 11 |" in (store.root / FOUND).read_text()
    assert "| #ffffff | (ignored) | 11 |" in (store.root / FOUND).read_text()


def test_palette_masks_by_colour(tmp_path: Path) -> None:
    folder = fields(tmp_path / "d")
    for path in folder.rglob("masks/*.png"):
        Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE, colors=4).save(path)
    assert set(np.unique(opened(folder, masks=COLOURS).segmentation("val"))) == {0, 1, 2, 255}


@pytest.mark.parametrize("layout", ["images/{split}", "{split}"])
def test_split_folders_inside_images_and_one_folder_of_masks(layout: str, tmp_path: Path) -> None:
    source, folder = fields(tmp_path / "s"), tmp_path / "d"
    for split in ("train", "val", "test"):
        shutil.copytree(source / split / "images", folder / layout.format(split=split))
        shutil.copytree(source / split / "masks", folder / "masks" / split)
    assert len(ids(opened(folder, masks=COLOURS))["test"]) == 3


def test_images_right_in_the_folder_and_another_ending(tmp_path: Path) -> None:
    folder = cracks(tmp_path / "d")
    for path in list((folder / "images").iterdir()):
        path.rename(folder / path.name)
    (folder / "images").rmdir()
    (folder / "masks").rename(folder / "truth")
    for path in list((folder / "truth").iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    store = opened(folder, masks={**BINARY, "folder": "truth", "suffix": "_mask"})
    assert len(ids(store)["train"]) == 8
    assert listed(store) == {}


@pytest.mark.parametrize("ending", ["png", "tif", "float.tif", "npy"])
def test_depth_with_classes_and_groups_of_a_csv(ending: str, tmp_path: Path) -> None:
    folder, scale = rgbd(tmp_path / "d"), MILLIMETRES
    for path in list((folder / "depth").iterdir()):
        raw = np.asarray(Image.open(path))
        if ending == "tif":
            Image.fromarray(raw).save(path.with_suffix(".tif"))
        if ending in ("float.tif", "npy"):
            scale = {}
            metres = np.where(raw == 0, np.nan, raw / 1000).astype(np.float32)
            if ending == "npy":
                np.save(path.with_suffix(".npy"), metres[..., None], allow_pickle=False)
            else:
                Image.fromarray(metres).save(path.with_suffix(".tif"))
        if ending != "png":
            path.unlink()
    store = opened(folder, depth=scale, labels="labels.csv", group={"column": "video"})
    assert set(store.meta.tasks) == {"classification", "depth"}
    assert store.task("classification").classes == ("kitchen", "office")
    depth, images = store.depth("train"), store.images("train")
    np.testing.assert_allclose(255 - depth[depth > 0] * 50, images[..., 2][depth > 0], atol=4)
    assert (depth == 0).mean() == pytest.approx(4 / 30, abs=0.01)
    videos = {name: int(Path(name).stem) // 2 for names in ids(store).values() for name in names}
    sides = [{videos[name] for name in names} for names in ids(store).values()]
    assert sum(map(len, sides)) == len(set().union(*sides)) == 6
    number = {video: i for i, video in enumerate(sorted(set(videos.values())))}
    assert store.groups("test").tolist() == [number[videos[name]] for name in ids(store)["test"]]
    (store.root / GROUPS).write_bytes((store.root / GROUPS).read_bytes()[:-1] + b"\x07")
    with pytest.raises(UserError, match=r"groups\.npy: damaged"):
        store.groups("test")
    assert "12 depth maps: 0." in (store.root / FOUND).read_text()
    assert store.task("depth").depth_range == (0.001, 100.0)


def test_masks_and_depth_on_the_same_images(tmp_path: Path) -> None:
    folder = cracks(tmp_path / "d")
    shutil.copytree(rgbd(tmp_path / "other") / "depth", folder / "depth")
    for i, path in enumerate(sorted((folder / "depth").iterdir())):
        path.rename(path.with_name(f"road{i // 3}_{i:02d}.png"))
    store = opened(folder, masks=BINARY, depth={**MILLIMETRES, "range": [1.0, 3.0]})
    assert set(store.meta.tasks) == {"segmentation", "depth"}
    measured = store.depth("pool")[store.depth("pool") > 0]
    assert 1 <= measured.min() < measured.max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_turn_with_their_image(orientation: int, tmp_path: Path) -> None:
    stored = np.arange(12).reshape(3, 4)
    image = Image.fromarray(stored.astype(np.uint8))
    image.getexif()[ORIENTATION] = orientation
    image.save(tmp_path / "x.png", exif=image.getexif())
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "x.png")))
    assert np.array_equal(turned(stored, orientation), upright)


@pytest.mark.parametrize("ending", [".png", ".tif"])  # Pillow turns the latter by itself
@pytest.mark.parametrize("grid", ["upright", "stored"])
def test_a_mask_on_the_grid_of_the_upright_or_of_the_stored_image(grid: str, ending: str, tmp_path: Path) -> None:
    folder, reference = cracks(tmp_path / "d"), cracks(tmp_path / "r")
    name = "images/road0_00.png"
    turned_back = Image.open(folder / name).transpose(Image.Transpose.ROTATE_90)
    exif = turned_back.getexif()
    exif[ORIENTATION] = 6
    (folder / name).unlink()
    turned_back.save((folder / name).with_suffix(ending), exif=exif)
    if grid == "stored":
        mask = folder / "masks/road0_00.png"
        Image.open(mask).transpose(Image.Transpose.ROTATE_90).save(mask)
    (reference / name).rename((reference / name).with_suffix(ending))
    first, second = (opened(f, masks=BINARY) for f in (folder, reference))
    for split in ("train", "val", "test"):
        assert np.array_equal(first.images(split), second.images(split))
        assert np.array_equal(first.segmentation(split), second.segmentation(split))


def put(folder: Path, name: str, pixels: np.ndarray) -> None:
    write(folder / name, pixels)


MASK = np.zeros(SIDE[::-1], np.uint8)


@pytest.mark.parametrize(
    ("name", "pixels", "said"),
    [
        ("masks/road0_00.png", MASK[:, :20], r"20×30 pixels; expected 40×30"),
        (
            "masks/road0_00.png",
            MASK + 7,
            r"1 unknown mask value\(s\), for one 7 in 1 of 12 masks \(road0_00.png\).*expected 0, 255",
        ),
        ("masks/road0_00.png", noise(1), r"road0_00.png: a mask of colours"),
        ("masks/road0_00.tif", MASK, "two label files of one name"),
        (
            "images/road0_00.bmp",
            noise(1),
            r"road0_00.png stands for images/road0_00.* and .*; expected names that differ",
        ),
    ],
)
def test_wrong_masks_are_one_error(name: str, pixels: np.ndarray, said: str, tmp_path: Path) -> None:
    folder = cracks(tmp_path / "d")
    put(folder, name, pixels)
    with pytest.raises(UserError, match=said):
        opened(folder, masks=BINARY)


def test_an_unknown_colour_and_a_smoothed_mask_are_one_error(tmp_path: Path) -> None:
    folder = fields(tmp_path / "d")
    with pytest.raises(UserError, match=r"for one #ffffff in 11 of 11 masks.*expected #000000, #00ff00, #ff0000"):
        opened(folder, masks={"classes": COLOURS["classes"]})
    put(folder, "train/masks/0.png", noise(3))
    with pytest.raises(UserError, match=r"saved with loss"):
        opened(folder, masks=COLOURS)
    put(cracks(tmp_path / "e"), "masks/road0_00.png", np.arange(1200, dtype=np.uint16).reshape(SIDE[::-1]))
    with pytest.raises(UserError, match=r"masks with 1200 values .*expected 2 to 64"):
        opened(tmp_path / "e", masks={})
    (tmp_path / "e/masks/road0_00.png").unlink()
    for value in (70_000, -1):
        put(tmp_path / "e", "masks/road0_00.tif", np.full(SIDE[::-1], value, np.int32))
        for masks in ({}, BINARY):
            with pytest.raises(UserError, match=rf"the value {value} \(road0_00.tif\); expected 0 to 65535"):
                opened(tmp_path / "e", masks=masks)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"masks": {"folder": "nowhere"}}, "nowhere: no such folder of labels"),
        ({"masks": {"suffix": "_gt"}}, "none of 12 images has its label here, road0_00_gt.png for one"),
        ({"masks": BINARY, "labels": "labels.csv"}, "labels.csv: no such file"),
        ({"depth": {"folder": "masks"}}, "whole numbers up to 255"),
        ({"masks": BINARY, "group": {"pattern": "^video"}}, "'\\^video' does not match images/road0_00.png"),
        ({"masks": BINARY, "group": {"pattern": "images"}}, r"1 group\(s\) of images by `group`; expected at least 3"),
        ({}, r"masks/ is called like a folder of label files.*set `masks` or `depth`"),
    ],
)
def test_settings_that_do_not_fit_the_folder(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        opened(cracks(tmp_path / "d"), **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"masks": {"classes": ["one"]}}, "1 entries; expected 2 to 255"),
        ({"masks": {"classes": {"a": 1, "b": CROP}}}, "mix values and colours"),
        ({"masks": {"classes": {"a": 1, "b": 1}}}, "given twice"),
        ({"masks": {"ignore": [CROP]}}, "classes has none"),
        ({"masks": {"folder": "/elsewhere"}}, "folder"),
        ({"depth": {"range": [2, 1]}}, "lowest, highest"),
        ({"group": {}}, "no rule"),
        ({"group": {"separator": "_", "by": "folder"}}, "expected one of"),
        ({"group": {"pattern": "("}}, "no regular expression"),
        ({"group": {"column": "video"}}, "labels is no CSV file"),
        ({"labels": "classes"}, "labels"),
    ],
)
def test_settings_that_contradict_themselves(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ImageFolder.model_validate({"root": "d", **settings})


def test_what_lacks_a_label_or_an_image_is_listed(tmp_path: Path) -> None:
    folder = cracks(tmp_path / "d", 20)
    (folder / "masks/road0_01.png").unlink()
    put(folder, "masks/road9_99.png", MASK)
    settings: dict[str, Any] = {"masks": {**BINARY, "ignore": [9]}}
    (folder / "masks/road0_02.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"2 of 20 images cannot be used .*raise `max_quarantined`"):
        opened(folder, **settings)
    put(folder, "masks/road0_02.png", MASK + 9)
    store = opened(folder, **settings, max_quarantined=0.2)
    assert listed(store) == {
        "images/road0_01.png": "no file in masks/",
        "images/road0_02.png": "its mask road0_02.png: no pixel of the central square counts, all are ignored",
        "masks/road9_99.png": "a label file of no image",
    }
    said = ImageFolder.model_validate({"root": str(folder), **settings}).remarks()
    assert f"{folder}: 1 images cannot be used, no file in masks/ (for one, images/road0_01.png)" in said


def test_depth_maps_without_a_valid_pixel_are_listed(tmp_path: Path) -> None:
    folder = rgbd(tmp_path / "d")
    put(folder, "depth/03.png", np.full(SIDE[::-1], 60000, np.uint16))
    put(folder, "depth/04.png", np.zeros(SIDE[::-1], np.uint16))
    (folder / "depth/05.png").write_bytes(b"PNG")
    store = opened(folder, depth={**MILLIMETRES, "range": [0.1, 10]}, max_quarantined=0.4, labels="none")
    reasons = listed(store)
    assert reasons["images/03.png"] == "its label 03.png: 60 to 60 m, no pixel within 0.1 to 10 m"
    assert reasons["images/04.png"] == "its label 04.png: nothing measured, no pixel within 0.1 to 10 m"
    assert reasons["images/05.png"].startswith("its label 05.png: not a readable depth map")
    with pytest.raises(UserError, match="12 of 12 images cannot be used"):
        opened(folder, depth={"scale": 1.0}, labels="none")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,class\n00.png,a\n", r"expected file,class"),
        ("file,class\n00.png,a\n00.png,b\n", "00.png has two rows"),
        ("file,class\n00.png,a\n./00.png,b\n", "00.png has two rows"),
        ("file,class,class\n00.png,a,b\n", "the column 'class' stands twice"),
        ("file,class\n00.png,a,b\n01.png,b,a\n", "line 2 has 3 values, the header 2"),
        ("file,class\nelse.png,a\n", "no row is of an image"),
        ("", "not a readable CSV file"),
        (
            "file,class\n" + "".join(f"{i:02d}.png,a\n" for i in range(12)),
            "labels.csv has one class, 'a'; expected two",
        ),
    ],
)
def test_a_csv_that_cannot_be_used(text: str, said: str, tmp_path: Path) -> None:
    folder = rgbd(tmp_path / "d")
    (folder / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        opened(folder, labels="labels.csv", depth=MILLIMETRES)


def test_images_and_rows_without_each_other_are_listed(tmp_path: Path) -> None:
    folder = rgbd(tmp_path / "d")
    text = (folder / "labels.csv").read_text().replace("03.png,kitchen", "33.png,kitchen")
    (folder / "labels.csv").write_text(text.replace("05.png,kitchen", "images/05.png,"))
    store = opened(folder, labels="labels.csv", max_quarantined=0.2)
    assert listed(store) == {
        "images/03.png": "no class in labels.csv",
        "images/05.png": "no class in labels.csv",
        "33.png": "a row of the CSV file of no image",
    }


def test_given_splits_that_share_a_group_are_refused(tmp_path: Path) -> None:
    folder = fields(tmp_path / "d")
    for split in ("train", "val", "test"):
        for place in ("images", "masks"):
            (folder / split / place / "0.png").rename(folder / split / place / f"walk{split == 'val'}_0.png")
    with pytest.raises(UserError, match=r"group 'walkFalse' has images in .* and in .*split: seeded"):
        opened(folder, masks=COLOURS, group={"separator": "_"})
    assert len(ids(opened(folder, masks=COLOURS, group={"separator": "_"}, split="seeded"))["test"]) == 2


@pytest.mark.parametrize(
    ("rule", "group"),
    [
        ({"by": "folder"}, "images/a"),
        ({"separator": "_"}, "walk_3"),
        ({"pattern": r"(walk_\d+)_"}, "walk_3"),
        ({"pattern": r"walk"}, "walk"),
        ({"column": "video"}, "v1"),
    ],
)
def test_rules_of_groups(rule: dict[str, str], group: str) -> None:
    name = "images/a/walk_3_007.png"
    assert Grouping.model_validate(rule).of(name, {name: "v1"}) == group


@pytest.mark.parametrize("pattern", ["zzz", "^(zzz)?"])
def test_a_pattern_that_finds_nothing_is_one_sentence(pattern: str) -> None:
    with pytest.raises(UserError, match=r"does not match images/a\.png; expected it to match every image"):
        Grouping(pattern=pattern).of("images/a.png", {})


def test_groups_stay_whole_and_parts_come_near_their_size() -> None:
    groups = [f"g{i // 4}" for i in range(48)]
    strata = ["a" if i < 24 else "b" for i in range(48)]
    val, test, train = cut_groups(groups, strata, [9, 11], 0)
    assert (len(val), len(test), len(train)) == (8, 12, 28)
    sides = [{groups[i] for i in part} for part in (val, test, train)]
    assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
    assert {strata[i] for i in val} == {strata[i] for i in test} == {"a", "b"}
    assert cut_groups(groups, strata, [9, 11], 1) != [val, test, train]
    assert [len(part) for part in cut_groups(["big"] * 40 + ["b", "c", "d"], [""] * 43, [2, 2], 0)][2] >= 39


def test_folders_of_a_group_are_no_classes(tmp_path: Path) -> None:
    folder = cracks(tmp_path / "d")
    for path in [*(folder / "images").iterdir(), *(folder / "masks").iterdir()]:
        (path.parent / path.name[:5]).mkdir(exist_ok=True)
        path.rename(path.parent / path.name[:5] / path.name)
    store = opened(folder, masks=BINARY, group={"by": "folder"})
    assert set(store.meta.tasks) == {"segmentation"}
    places = [{Path(name).parent for name in names} for names in ids(store).values()]
    assert sum(map(len, places)) == len(set().union(*places)) == 4
    assert set(opened(folder, masks=BINARY).meta.tasks) == {"classification", "segmentation"}
