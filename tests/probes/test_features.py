"""The feature pass against direct model calls, and the checks of the feature file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.numpy import load_file

from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.store import Store
from lowdata_cpt.probes import feature_file
from lowdata_cpt.probes.config import FeaturesConfig
from lowdata_cpt.probes.features import diet_view, extract, labelled_sets
from tests.probes import synthetic

CPU = torch.device("cpu")
SIDE, IMAGE = 40, 32


@pytest.fixture(scope="module")
def backbone() -> ViT:
    torch.manual_seed(0)
    return ViT("test_vit", image_size=IMAGE)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Dense tasks share their sets; the classification train set is two rows of an array."""
    rng = np.random.default_rng(0)
    counts = {"pool": 2, "train": 5, "val": 3, "test": 3, "crops": 4}
    arrays = {name: {"images": rng.integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)} for name, n in counts.items()}
    tasks: dict[str, dict[str, Any]] = {
        "segmentation": {"sets": synthetic.splits(), "classes": ["a", "b"]},
        "depth": {"sets": synthetic.splits()},
        "classification": {"sets": {"train": "some", "val": "crops", "test": "test"}, "classes": ["a", "b"]},
    }
    return synthetic.write_store(tmp_path / "store", arrays, tasks, resolution=SIDE, rows={"some": ("crops", [3, 1])})


def run(backbone: ViT, store: Store, target: Path, *, seed: int = 0, **config: Any) -> dict[str, np.ndarray]:
    settings = FeaturesConfig(**{"batch_size": 2} | config)
    extract(backbone, store, settings, CPU, target, seed=seed, precision="fp32")
    return load_file(target)


def test_features_equal_a_direct_call(backbone: ViT, store: Store, tmp_path: Path) -> None:
    got = run(backbone, store, tmp_path / "f.safetensors")
    images = torch.from_numpy(np.array(store.images("train"))).permute(0, 3, 1, 2).float() / 255
    images = F.interpolate(images, size=(IMAGE, IMAGE), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (backbone.mean, backbone.std))
    with torch.no_grad():
        direct = backbone.eval()((images - mean) / std)
    np.testing.assert_allclose(got["train/cls"], direct.cls.numpy(), rtol=1e-4, atol=1e-5)
    grid = backbone.grid()
    expected = direct.patches.view(5, grid, grid, -1).numpy()
    np.testing.assert_allclose(got["train/patches"], expected, rtol=2e-3, atol=2e-3)
    assert got["train/cls"].dtype == np.float32
    assert got["train/patches"].dtype == np.float16


def test_only_dense_sets_have_patches_and_the_pool_is_not_passed(backbone: ViT, store: Store, tmp_path: Path) -> None:
    got = run(backbone, store, tmp_path / "f.safetensors")
    dense = {f"{s}/{kind}" for s in ("train", "val", "test") for kind in ("cls", "patches")}
    assert set(got) == dense | {"some/cls", "crops/cls"}
    np.testing.assert_allclose(got["some/cls"], got["crops/cls"][[3, 1]], rtol=1e-4, atol=1e-5)


def test_shared_sets_are_passed_once(
    backbone: ViT, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[int] = []
    hook = backbone.register_forward_pre_hook(lambda _, inputs: passed.append(len(inputs[0])))
    run(backbone, store, tmp_path / "f.safetensors")
    hook.remove()
    assert sum(passed) == 5 + 3 + 3 + 2 + 4
    assert labelled_sets(store) == {"train": True, "val": True, "test": True, "some": False, "crops": False}


def test_the_augmented_bank_is_seeded_and_differs_from_the_clean_one(
    backbone: ViT, store: Store, tmp_path: Path
) -> None:
    a, b, c = (
        run(backbone, store, tmp_path / f"{i}.safetensors", seed=seed, augmented_bank=True)["some/cls_augmented"]
        for i, seed in enumerate((0, 0, 1))
    )
    assert a.shape == (2, backbone.width)
    assert np.array_equal(a, b)
    assert not np.allclose(a, c)
    assert not np.allclose(a, run(backbone, store, tmp_path / "clean.safetensors")["some/cls"])


def test_diet_view_stays_in_range_and_has_the_asked_size() -> None:
    images = torch.rand(8, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    view = diet_view(images, IMAGE, torch.Generator().manual_seed(0))
    assert view.shape == (8, 3, IMAGE, IMAGE)
    assert view.min() >= 0
    assert view.max() <= 1 + 1e-6


def test_twice_gives_the_same_bytes_and_the_model_is_left_in_eval(backbone: ViT, store: Store, tmp_path: Path) -> None:
    backbone.train()
    run(backbone, store, tmp_path / "a.safetensors")
    run(backbone, store, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert not backbone.training


def test_metadata_names_content_grid_and_width(backbone: ViT, store: Store, tmp_path: Path) -> None:
    run(backbone, store, tmp_path / "f.safetensors")
    with safe_open(tmp_path / "f.safetensors", framework="numpy") as stream:
        facts = feature_file.Facts.model_validate_json(stream.metadata()[feature_file.METADATA_KEY])
    assert (facts.grid, facts.width, facts.image_size) == (backbone.grid(), backbone.width, IMAGE)
    assert facts.content_sha256 == store.meta.content_sha256
    assert feature_file.read(tmp_path / "f.safetensors", store, "val", "patches").shape[0] == 3


def test_bf16_stays_close(backbone: ViT, store: Store, tmp_path: Path) -> None:
    full = run(backbone, store, tmp_path / "a.safetensors")
    extract(backbone, store, FeaturesConfig(), CPU, tmp_path / "b.safetensors", seed=0, precision="bf16")
    half = load_file(tmp_path / "b.safetensors")
    assert half["train/cls"].dtype == np.float32
    assert 0 < np.abs(half["train/cls"] - full["train/cls"]).max() < 0.2


def test_features_that_are_not_finite_are_an_error(store: Store, tmp_path: Path) -> None:
    broken = ViT("test_vit", image_size=IMAGE)
    with torch.no_grad():
        broken.norm.weight.fill_(torch.nan)
    with pytest.raises(UserError, match="not finite"):
        run(broken, store, tmp_path / "f.safetensors")
    assert not (tmp_path / "f.safetensors").exists()


def test_a_task_without_a_split_is_an_error(backbone: ViT, tmp_path: Path) -> None:
    images = np.zeros((2, SIDE, SIDE, 3), dtype=np.uint8)
    tasks = {"depth": {"sets": {"train": "a", "test": "a"}}}
    broken = synthetic.write_store(tmp_path / "s", {"a": {"images": images}}, tasks)
    with pytest.raises(UserError, match="'depth' has no 'val' set"):
        run(backbone, broken, tmp_path / "f.safetensors")


def read_error(path: Path, store: Store, kind: str = "cls") -> str:
    with pytest.raises(UserError) as error:
        feature_file.read(path, store, "train", kind)
    return str(error.value)


def test_features_of_another_store_are_refused(tmp_path: Path) -> None:
    store, _ = synthetic.dense_toy(tmp_path)
    patches = np.zeros((24, 4, 4, 8), dtype=np.float16)
    path = synthetic.write_features(tmp_path / "o.safetensors", {"train/patches": patches}, content="b" * 64)
    assert "features of other images" in read_error(path, store, "patches")


def test_features_of_another_grid_or_count_are_refused(tmp_path: Path) -> None:
    store, _ = synthetic.dense_toy(tmp_path)
    for shape in ((24, 4, 2, 8), (23, 4, 4, 8)):
        path = synthetic.write_features(tmp_path / "o.safetensors", {"train/patches": np.zeros(shape, np.float16)})
        assert f"has shape {list(shape)}; expected [24, 4, 4, 8]" in read_error(path, store, "patches")


def test_missing_damaged_and_incomplete_files_are_refused(tmp_path: Path) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    assert "no such feature file" in read_error(tmp_path / "none.safetensors", store)
    assert "has no 'train/cls'" in read_error(features, store)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(features.read_bytes()[:200])
    assert "not a feature file" in read_error(damaged, store)
    damaged.write_bytes(b"")
    assert "not a feature file" in read_error(damaged, store)
