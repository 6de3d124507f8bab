from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.domain import prepare
from lowdata_cpt.data.domains.nyuv2 import EVAL_CROP, NYUv2
from lowdata_cpt.data.store import Store
from lowdata_cpt.dev.fixtures import NYU_SIZE, nyu_depth, nyuv2

SIDE = 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    nyuv2(tmp_path / "nyuv2")
    return tmp_path / "nyuv2"


def opened(folder: Path, **settings: object) -> Store:
    domain = NYUv2.model_validate({"root": str(folder), "resolution": SIDE, **settings})
    return prepare(domain, folder.parent / "cache")


def test_depth_is_metres_of_the_stretched_frame_without_its_border(folder: Path) -> None:
    store = opened(folder)
    info = store.task("depth")
    assert info.depth_range == (1e-3, 10.0)
    width, margin = NYU_SIZE[0], 12 * NYU_SIZE[0] / 640
    columns = np.floor(margin + (np.arange(SIDE) + 0.5) / SIDE * (width - 2 * margin)).astype(int)
    for name in ("train", "val", "test"):
        for depth, frame in zip(store.depth(name), store.rows(name)["id"], strict=True):
            assert np.array_equal(depth, np.repeat(nyu_depth(int(frame) - 1)[:1, columns], SIDE, 0))


def test_white_border_is_gone(folder: Path) -> None:
    images = opened(folder).images("pool")
    tint = images[:, SIDE // 2, SIDE // 2, 1:]
    for edge in (images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]):
        assert np.abs(edge[..., 1:].astype(int) - tint[:, None]).max() <= 2


def test_eigen_crop_in_fractions_of_the_square() -> None:
    """Back in pixels of 640×480 the crop is rows 45 to 471 and columns 41 to 601."""
    top, bottom, left, right = EVAL_CROP
    assert (9 + top * 462, 9 + bottom * 462) == pytest.approx((45, 471))
    assert (12 + left * 616, 12 + right * 616) == pytest.approx((41, 601))
    assert min(EVAL_CROP) >= 0
    assert max(EVAL_CROP) <= 1


def test_official_split_and_scene_types(folder: Path) -> None:
    store = opened(folder)
    assert store.rows("test")["id"].tolist() == ["0002", "0005"]
    assert sorted([*store.rows("pool")["id"], *store.rows("val")["id"]]) == ["0001", "0003", "0004", "0006", "0007"]
    assert store.rows("test")["stratum"].tolist() == ["office", "kitchen"]


def test_unlabelled_is_ignored_and_otherprop_counts(folder: Path) -> None:
    mapping = np.full((1, 894), 40, np.uint8)
    scipy.io.savemat(folder / "classMapping40.mat", {"mapClass": mapping})
    segmentation = opened(folder).segmentation("test")
    assert set(np.unique(segmentation)) == {39, 255}


def test_depth_alone_needs_no_mapping(folder: Path) -> None:
    (folder / "classMapping40.mat").unlink()
    with pytest.raises(UserError, match=r"classMapping40\.mat is missing \(or set `segmentation: false`\).*Gupta"):
        opened(folder)
    store = opened(folder, segmentation=False)
    assert list(store.meta.tasks) == ["depth"]
    assert NYUv2(segmentation=False).tasks() == ("depth",)


def test_depth_in_millimetres(folder: Path) -> None:
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "r+") as file:
        file["depths"][...] = file["depths"][...] * 1000
    with pytest.raises(UserError, match=r"frame \d.*expected metres"):
        opened(folder)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("depths", (7, 80, 60), "`depths` has the shape"),
        ("images", (7, 160, 120, 3), "`images`"),
        ("labels", None, "no variable `labels`"),
    ],
)
def test_wrong_arrays(name: str, shape: tuple[int, ...] | None, said: str, folder: Path) -> None:
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "r+") as file:
        del file[name]
        if shape:
            file[name] = np.zeros(shape, np.uint8)
    with pytest.raises(UserError, match=said):
        opened(folder)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ({"trainNdxs": [[1, 2]]}, "no variable `testNdxs`"),
        ({"trainNdxs": [[1, 2]], "testNdxs": [[2, 3]]}, "disjoint"),
        ({"trainNdxs": [[0, 1]], "testNdxs": [[2, 3]]}, "1-based"),
        ({"trainNdxs": [[1, 2]], "testNdxs": [[8]]}, "up to 7"),
    ],
)
def test_wrong_splits(contents: dict[str, list[list[int]]], said: str, folder: Path) -> None:
    scipy.io.savemat(folder / "splits.mat", contents)
    with pytest.raises(UserError, match=said):
        opened(folder)


def test_split_file_that_is_no_matlab_file(folder: Path) -> None:
    (folder / "splits.mat").write_text("hello")
    with pytest.raises(UserError, match=r"splits\.mat: not a readable MATLAB file"):
        opened(folder)
