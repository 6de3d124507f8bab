"""What a render holds: shapes, labels that agree, metric depth, and the same bytes however it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json, sha256_file
from lowdata_cpt.data.tabletop import gl, render
from lowdata_cpt.data.tabletop.catalogue import FAR, HELD_OUT, KIND_OF, KINDS
from lowdata_cpt.data.tabletop.render import draw_shards
from lowdata_cpt.data.tabletop.shards import Settings
from tests.data.tabletop.conftest import COUNTS

LABELLED = ("train", "val", "test")


def load(folder: Path, name: str) -> np.ndarray:
    return np.load(folder / f"{name}.npy", allow_pickle=False)


def points_of(depth: np.ndarray, camera: dict[str, Any]) -> np.ndarray:
    """Un-project a depth map [R, R] into world coordinates [R, R, 3], from first principles."""
    side = len(depth)
    # Labels are the lower right of each 2 × 2 samples, a quarter of a pixel from the pixel's centre.
    at = (np.arange(side) + 0.75) / side * 2 - 1
    tangent = np.tan(np.radians(camera["fovy"]) / 2)
    right, down = np.meshgrid(at * tangent, at * tangent)
    rays = np.stack([right, -down, -np.ones_like(right)], -1) * depth[..., None]
    w, x, y, z = camera["quaternion"]
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    return rays @ turn.T + np.array(camera["position"])


def test_shapes_and_types(rendered: Path) -> None:
    for split, count in COUNTS.items():
        images = load(rendered, f"{split}.images")
        assert images.shape == (count, 64, 64, 3)
        assert images.dtype == np.uint8
    for split in LABELLED:
        for name, dtype in (("segmentation", np.uint8), ("instances", np.uint8), ("depth", np.float32)):
            array = load(rendered, f"{split}.{name}")
            assert array.shape == (COUNTS[split], 64, 64)
            assert array.dtype == dtype
        crops, labels = load(rendered, f"crops_{split}.images"), load(rendered, f"crops_{split}.labels")
        assert crops.shape == (len(labels), 32, 32, 3)
        assert labels.dtype == np.int64
        assert len(labels) > COUNTS[split]


def test_pictures_show_something(rendered: Path) -> None:
    for split in COUNTS:
        assert (load(rendered, f"{split}.images").std((1, 2)).max(-1) > 8).all()


def test_depth_is_metric_and_not_cut_off_near_the_camera(rendered: Path) -> None:
    """Un-projected, the table top lies at its height and nothing on it lies below."""
    index = read_json(rendered / "index.json")
    nearest = np.inf
    for split in LABELLED:
        depth, instances = load(rendered, f"{split}.depth"), load(rendered, f"{split}.instances")
        for row, scene in enumerate(index["splits"][split]):
            height = points_of(depth[row], scene["camera"])[..., 2]
            on_top = np.abs(height[instances[row] == 0] - scene["table_height"]) < 0.002
            assert on_top.mean() > 0.2
            assert height[instances[row] > 0].min() > scene["table_height"] - 0.006
            nearest = min(nearest, float(depth[row].min()))
    # MuJoCo's own choice of the near plane would have cut off everything within 0.525 m.
    assert 0.1 < nearest < 0.5


def test_every_pixel_sees_a_surface(rendered: Path) -> None:
    for split in LABELLED:
        assert load(rendered, f"{split}.depth").max() < FAR / 2


def test_classes_follow_from_the_objects(rendered: Path) -> None:
    index = read_json(rendered / "index.json")
    assert index["kinds"] == ["background", *index["classes"]]
    for split in LABELLED:
        segmentation, instances = load(rendered, f"{split}.segmentation"), load(rendered, f"{split}.instances")
        for row, scene in enumerate(index["splits"][split]):
            classes = np.array([0, *(KIND_OF[name] for name in scene["objects"])])
            np.testing.assert_array_equal(segmentation[row], classes[instances[row]])
            pixels = np.bincount(segmentation[row].ravel(), minlength=len(KINDS) + 1)[1:]
            assert scene["stratum"] == KINDS[pixels.argmax()].name


def test_crops_name_their_instance(rendered: Path) -> None:
    index = read_json(rendered / "index.json")
    for split in LABELLED:
        labels, instances = load(rendered, f"crops_{split}.labels"), load(rendered, f"{split}.instances")
        assert len(labels) == len(index["crops"][split])
        for label, (seed, row, instance) in zip(labels, index["crops"][split], strict=True):
            scene = index["splits"][split][row]
            assert scene["seed"] == seed
            assert KIND_OF[scene["objects"][instance - 1]] == label + 1
            assert (instances[row] == instance).sum() > 400 * (64 / 224) ** 2


def test_no_held_out_object_is_in_pool_or_training_scenes(rendered: Path) -> None:
    splits = read_json(rendered / "index.json")["splits"]
    for split in ("pool", "train"):
        assert not HELD_OUT & {name for scene in splits[split] for name in scene["objects"]}
    for split in ("val", "test"):
        shown = {name for scene in splits[split] for name in scene["objects"]}
        assert shown & HELD_OUT
        assert shown - HELD_OUT


def test_the_index_hashes_every_array(rendered: Path) -> None:
    hashes = read_json(rendered / "index.json")["sha256"]
    assert set(hashes) == {path.name for path in rendered.glob("*.npy")}
    assert all(sha256_file(rendered / name) == value for name, value in hashes.items())


def test_a_smaller_count_and_one_process_give_the_same_bytes(rendered: Path, assets: Path, tmp_path: Path) -> None:
    render(assets, tmp_path, resolution=64, counts={"test": 2}, seed=3, processes=1, crop_size=32)
    for name in ("images", "segmentation", "instances", "depth"):
        np.testing.assert_array_equal(load(tmp_path, f"test.{name}"), load(rendered, f"test.{name}")[:2])
    few = load(tmp_path, "crops_test.images")
    np.testing.assert_array_equal(few, load(rendered, "crops_test.images")[: len(few)])
    assert not (tmp_path / ".shards").exists()


def test_finished_shards_survive_and_unfinished_ones_are_drawn_again(
    rendered: Path, assets: Path, tmp_path: Path
) -> None:
    settings, counts = Settings(3, 64, 32), {"val": 13}
    first, second = draw_shards(assets, tmp_path, settings, counts, 1, gl.find_backend())
    kept = first.path.with_suffix(".npz").stat().st_mtime_ns
    # A kill between the two files of a shard leaves arrays without their record.
    second.path.with_suffix(".json").unlink()
    second.path.with_suffix(".npz").write_bytes(b"torn")
    draw_shards(assets, tmp_path, settings, counts, 1, gl.find_backend())
    assert first.path.with_suffix(".npz").stat().st_mtime_ns == kept
    with np.load(second.path.with_suffix(".npz")) as arrays:
        assert arrays["images"].shape == (1, 64, 64, 3)
    with np.load(first.path.with_suffix(".npz")) as arrays:
        np.testing.assert_array_equal(arrays["images"][:2], load(rendered, "val.images"))


def test_a_finished_render_is_left_alone(rendered: Path, assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "nothing")
    render(assets, rendered, resolution=64, counts=COUNTS, seed=3, processes=2, crop_size=32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": {"trian": 3}}, "unknown split 'trian'"),
        ({"counts": {"train": 0}}, "train is 0"),
        ({"resolution": 3}, "resolution: 3"),
        ({"processes": 0}, "processes: 0"),
        ({"crop_size": 1}, "crop_size: 1"),
    ],
)
def test_bad_requests_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    request: dict[str, Any] = {"resolution": 64, "counts": {"train": 1}, "seed": 0, "processes": 1}
    with pytest.raises(UserError, match=message):
        render(tmp_path, tmp_path / "out", **(request | change))


def test_missing_assets_and_missing_opengl_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"packages\.install"):
        render(tmp_path, tmp_path / "out", resolution=64, counts={"train": 1}, seed=0, processes=1)
    monkeypatch.setenv("MUJOCO_GL", "nothing")
    with pytest.raises(UserError, match="libosmesa6"):
        gl.find_backend()
