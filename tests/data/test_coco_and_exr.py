"""Masks of one COCO JSON and depth of EXR files, beside the user's own images, by configuration alone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest
from PIL import Image
from pycocotools import mask as coder

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.layouts.image_folder import FOUND
from lowdata_cpt.data.layouts.label_files import Depth
from tests.data.own import BINARY, MILLIMETRES, SIDE, cracks, ids, listed, noise, opened, rgbd, write


def as_coco(folder: Path) -> dict[str, Any]:
    """Write the masks of `cracks` as one COCO JSON, one annotation an image in each of its three codings."""
    images, annotations = [], []
    for i, path in enumerate(sorted((folder / "images").iterdir())):
        mask = np.asarray(Image.open(folder / "masks" / path.name)) > 0
        height, width = mask.shape
        images.append({"id": i, "file_name": path.name, "height": height, "width": width})
        left = int(mask.any(0).argmax())
        box = [left, 0, left + 3, 0, left + 3, height, left, height]
        runs = {"size": [height, width], "counts": [left * height, 3 * height, (width - left - 3) * height]}
        packed = coder.encode(np.asfortranarray(mask.astype(np.uint8)))
        packed["counts"] = packed["counts"].decode()
        annotations.append({"id": i, "image_id": i, "category_id": 7, "segmentation": ([box], runs, packed)[i % 3]})
    shutil.rmtree(folder / "masks")
    return {"images": images, "categories": [{"id": 7, "name": "crack"}], "annotations": annotations}


def test_masks_of_a_coco_json_are_those_of_files(tmp_path: Path) -> None:
    expected = opened(cracks(tmp_path / "files"), masks=BINARY)
    folder = cracks(tmp_path / "d")
    (folder / "all.json").write_text(json.dumps(as_coco(folder)))
    store = opened(folder, masks={"folder": "all.json"})
    assert store.task("segmentation").classes == ("background", "crack")
    for split in ("train", "val", "test"):
        assert ids(store)[split] == ids(expected)[split]
        assert np.array_equal(store.segmentation(split), expected.segmentation(split))
    assert "| 7 | crack | 12 | 7.5 % |" in (store.root / FOUND).read_text()
    named = opened(folder, masks={"folder": "all.json", "classes": ["crack", "background"]})
    assert named.task("segmentation").classes == ("crack", "background")


def test_overlaps_go_to_the_smaller_and_images_without_annotations_are_background(tmp_path: Path) -> None:
    folder = cracks(tmp_path / "d")
    found = as_coco(folder)
    found["categories"].append({"id": 9, "name": "road"})
    whole = [[0, 0, 40, 0, 40, 30, 0, 30]]
    found["annotations"] = [one for one in found["annotations"] if one["image_id"]]
    found["annotations"] += [{"id": 90 + i, "image_id": i, "category_id": 9, "segmentation": whole} for i in (1, 2)]
    (folder / "all.json").write_text(json.dumps(found))
    store = opened(folder, masks={"folder": "all.json"})
    said = (store.root / FOUND).read_text()
    assert "| 0 | background | 10 |" in said
    assert "| 7 | crack | 11 |" in said
    assert "| 9 | road | 2 |" in said


def test_an_image_of_a_coco_json_goes_by_its_whole_path_before_its_bare_name(tmp_path: Path) -> None:
    folder = cracks(tmp_path / "d")
    found = as_coco(folder)
    for i, path in enumerate(sorted((folder / "images").iterdir())):  # of the same names, all of them crack
        write(folder / "images/b" / path.name, noise(100 + i))
        found["images"].append({"id": 50 + i, "file_name": f"b/{path.name}", "height": SIDE[1], "width": SIDE[0]})
        whole = [[0, 0, SIDE[0], 0, SIDE[0], SIDE[1], 0, SIDE[1]]]
        found["annotations"].append({"id": 50 + i, "image_id": 50 + i, "category_id": 7, "segmentation": whole})
    (folder / "all.json").write_text(json.dumps(found))
    store = opened(folder, masks={"folder": "all.json"})
    for split in ("train", "val", "test"):
        for name, mask in zip(ids(store)[split], store.segmentation(split), strict=True):
            assert mask.all() == name.startswith("images/b/")
    found["images"] = found["images"][:12]
    found["annotations"] = found["annotations"][:12]
    (folder / "bare.json").write_text(json.dumps(found))
    said = "road0_00.png stands for images/b/road0_00.png and images/road0_00.png; expected their paths in `file_name`"
    with pytest.raises(UserError, match=re.escape(said)):
        opened(folder, masks={"folder": "bare.json"})


def test_more_categories_than_a_mask_can_hold_are_one_error(tmp_path: Path) -> None:
    folder = cracks(tmp_path / "d")
    found = as_coco(folder)
    found["categories"] = [{"id": 1 + i, "name": f"species {i}"} for i in range(264)]
    found["annotations"] = [
        {"id": i, "image_id": i // 22, "category_id": 1 + i, "segmentation": [[x, 0, x + 1, 0, x + 1, 30, x, 30]]}
        for i, x in ((i, i % 22) for i in range(264))
    ]
    (folder / "all.json").write_text(json.dumps(found))
    with pytest.raises(UserError, match="265 classes; expected at most 255: name those that count in `classes`"):
        opened(folder, masks={"folder": "all.json"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"annotations": None}, "not a COCO JSON with images, categories and annotations"),
        ({"categories": [{"id": 8, "name": "x"}]}, "is of category 7, which is not listed"),
        ({"categories": [{"id": 7, "name": "x"}] * 2}, "a category id is given twice"),
        ({"images": []}, "not a COCO JSON"),
        ({"annotations": [], "images": []}, "none of 12 images has its label here, road0_00.png for one"),
    ],
)
def test_a_coco_json_that_cannot_be_used(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = cracks(tmp_path / "d")
    (folder / "all.json").write_text(json.dumps(as_coco(folder) | change))
    with pytest.raises(UserError, match=re.escape(said)):
        opened(folder, masks={"folder": "all.json"})


def test_depth_of_exr_files(tmp_path: Path) -> None:
    expected = opened(rgbd(tmp_path / "png"), depth={"scale": 0.001}, labels="labels.csv")
    folder = rgbd(tmp_path / "d")
    for i, path in enumerate(sorted((folder / "depth").iterdir())):
        metres = np.asarray(Image.open(path)).astype(np.float32) / 1000
        # One channel, three equal ones, and one among others.
        names = ({"depth": metres}, dict.fromkeys("RGB", metres), {"A": metres * 0 + 1, "Z": metres})[i % 3]
        write_exr(path.with_suffix(".exr"), names)
        path.unlink()
    store = opened(folder, depth={}, labels="labels.csv")
    assert ids(store) == ids(expected)
    np.testing.assert_allclose(store.depth("train"), expected.depth("train"), atol=1e-6)
    assert "12 depth maps" in (store.root / FOUND).read_text()
    write_exr(folder / "depth/00.exr", {"A": metres, "B": metres + 1})
    with pytest.raises(UserError, match=r"00\.exr: channels A, B; expected one, or one that is called Z or Y"):
        opened(folder, depth={}, labels="labels.csv")
    (folder / "depth/00.exr").write_bytes(b"no picture")
    broken = opened(folder, depth={}, labels="labels.csv", max_quarantined=0.2)
    assert "not a readable depth map" in listed(broken)["images/00.png"]


def write_exr(path: Path, channels: dict[str, np.ndarray]) -> None:
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {name: np.ascontiguousarray(one) for name, one in channels.items()}).write(str(path))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full(SIDE[::-1], "1.5"), "a depth map of <U3; expected whole numbers or floats"),
        (np.ones(SIDE[::-1], bool), "a depth map of bool"),
        (np.ones(SIDE[::-1], complex), "a depth map of complex128"),
        (np.ones(SIDE[::-1], "datetime64[s]"), "a depth map of datetime64"),
        (np.ones(SIDE[::-1], [("z", float)]), "a depth map of .*'z'"),
    ],
    ids=lambda value: str(value)[-20:],
)
def test_depth_of_what_is_no_number_is_refused(values: np.ndarray, said: str, tmp_path: Path) -> None:
    folder = rgbd(tmp_path / "d")
    for path in (folder / "depth").iterdir():
        path.unlink()
        np.save(path.with_suffix(".npy"), values, allow_pickle=False)
    with pytest.raises(UserError, match=said):
        opened(folder, depth=MILLIMETRES)


def test_depth_that_was_saved_with_loss_is_refused(tmp_path: Path) -> None:
    folder = rgbd(tmp_path / "d")
    for path in (folder / "depth").iterdir():
        Image.fromarray(np.asarray(Image.open(path)).astype(np.uint8)).save(path.with_suffix(".jpg"))
        path.unlink()
    with pytest.raises(UserError, match=r"\.jpg: a depth map as JPEG; expected PNG, TIFF, NPY or EXR"):
        opened(folder, depth=MILLIMETRES)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_a_value_for_not_measured_is_found_in_floats_of_any_length(kind: type, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1, 65.535], [2, 0]], kind))
    assert Depth(invalid=(0.0, 65.535)).read(tmp_path / "x.npy").tolist() == [[1, 0], [2, 0]]


def test_a_depth_map_without_a_pixel_is_one_error(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((0, 4), np.uint16))
    with pytest.raises(UserError, match="whole numbers up to 0"):
        Depth().read(tmp_path / "x.npy")
