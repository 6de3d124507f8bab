"""The feature pass against direct model calls."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.store import Store
from lowdata_cpt.probes.config import FeaturesConfig
from lowdata_cpt.probes.features import SharedBlocks, diet_view, extract, labelled_sets
from lowdata_cpt.probes.result import FeatureSet
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


def run(backbone: ViT, store: Store, *, precision: str = "fp32", **rest: Any) -> FeatureSet:
    return extract(backbone, store, FeaturesConfig(batch_size=2), CPU, precision=precision, **rest)


def test_features_equal_a_direct_call(backbone: ViT, store: Store) -> None:
    got = run(backbone, store)
    images = torch.from_numpy(np.array(store.images("train"))).permute(0, 3, 1, 2).float() / 255
    images = F.interpolate(images, size=(IMAGE, IMAGE), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (backbone.mean, backbone.std))
    with torch.no_grad():
        direct = backbone.eval()((images - mean) / std)
    np.testing.assert_allclose(got.cls["train"], direct.cls.numpy(), rtol=1e-4, atol=1e-5)
    grid = backbone.grid()
    expected = direct.patches.view(5, grid, grid, -1).numpy()
    np.testing.assert_allclose(got.patches["train"], expected, rtol=2e-3, atol=2e-3)
    assert got.cls["train"].dtype == np.float32
    assert got.patches["train"].dtype == np.float16


def test_only_dense_sets_have_patches_and_the_pool_is_not_passed(backbone: ViT, store: Store) -> None:
    got = run(backbone, store)
    assert set(got.patches) == {"train", "val", "test"}
    assert set(got.cls) == {"train", "val", "test", "some", "crops"}
    assert not got.augmented
    np.testing.assert_allclose(got.cls["some"], got.cls["crops"][[3, 1]], rtol=1e-4, atol=1e-5)


def test_shared_sets_are_passed_once(backbone: ViT, store: Store) -> None:
    passed: list[int] = []
    hook = backbone.blocks[0].register_forward_pre_hook(lambda _, inputs: passed.append(len(inputs[0])))
    run(backbone, store)
    hook.remove()
    assert sum(passed) == 5 + 3 + 3 + 2 + 4
    assert labelled_sets(store) == {"train": True, "val": True, "test": True, "some": False, "crops": False}


def test_the_augmented_bank_is_seeded_and_differs_from_the_clean_one(backbone: ViT, store: Store) -> None:
    a, b, c = (run(backbone, store, seed=seed, augmented=True).augmented["some"] for seed in (0, 0, 1))
    assert a.shape == (2, backbone.width)
    assert np.array_equal(a, b)
    assert not np.allclose(a, c)
    assert not np.allclose(a, run(backbone, store).cls["some"])


def test_diet_view_stays_in_range_and_has_the_asked_size() -> None:
    images = torch.rand(8, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    view = diet_view(images, IMAGE, torch.Generator().manual_seed(0))
    assert view.shape == (8, 3, IMAGE, IMAGE)
    assert view.min() >= 0
    assert view.max() <= 1 + 1e-6


def test_twice_gives_the_same_bits_and_the_model_is_left_in_eval(backbone: ViT, store: Store) -> None:
    backbone.train()
    first, second = run(backbone, store), run(backbone, store)
    for kind in ("cls", "patches"):
        for name, array in getattr(first, kind).items():
            np.testing.assert_array_equal(array, getattr(second, kind)[name])
    assert not backbone.training


def test_bf16_stays_close(backbone: ViT, store: Store) -> None:
    full, half = (run(backbone, store, precision=precision).cls["train"] for precision in ("fp32", "bf16"))
    assert half.dtype == np.float32
    assert 0 < np.abs(half - full).max() < 0.2


def test_features_that_are_not_finite_are_an_error(store: Store) -> None:
    broken = ViT("test_vit", image_size=IMAGE)
    with torch.no_grad():
        broken.norm.weight.fill_(torch.nan)
    with pytest.raises(UserError, match=r"class tokens of set '[a-z]+' that are not finite"):
        run(broken, store)


def test_tokens_beyond_half_precision_are_an_error(store: Store) -> None:
    """65,504 is the largest float16: class tokens are kept in float32, patch tokens would become infinite."""
    large = ViT("test_vit", image_size=IMAGE)
    with torch.no_grad():
        large.norm.weight.fill_(1e6)
    with pytest.raises(UserError, match=r"patch tokens of set '[a-z]+' that are not finite"):
        run(large, store)


def test_a_task_without_a_split_is_an_error(backbone: ViT, tmp_path: Path) -> None:
    images = np.zeros((2, SIDE, SIDE, 3), dtype=np.uint8)
    tasks = {"depth": {"sets": {"train": "a", "test": "a"}}}
    broken = synthetic.write_store(tmp_path / "s", {"a": {"images": images}}, tasks)
    with pytest.raises(UserError, match="'depth' has no 'val' set"):
        run(backbone, broken)


@pytest.mark.parametrize("limit", [2**30, 20_000, 0], ids=["all kept", "some kept", "nothing kept"])
def test_shared_blocks_are_run_once_and_features_keep_their_bits(backbone: ViT, store: Store, limit: int) -> None:
    """The second of two models that differ in the last block gives what it gives alone; images go in once."""
    other = copy.deepcopy(backbone)
    with torch.no_grad():
        for parameter in other.blocks[-1].parameters():
            parameter.add_(0.05)
    shared, passed = SharedBlocks(backbone.depth - 1, limit=limit), []
    hooks = [
        model.blocks[0].register_forward_pre_hook(lambda _, inputs: passed.append(len(inputs[0])))
        for model in (backbone, other)
    ]
    got = [run(model, store, augmented=True, shared=shared) for model in (backbone, other)]
    for hook in hooks:
        hook.remove()
    for model, found in zip((backbone, other), got, strict=True):
        alone = run(model, store, augmented=True)
        for kind in ("cls", "patches", "augmented"):
            for name, array in getattr(alone, kind).items():
                np.testing.assert_array_equal(getattr(found, kind)[name], array)
    assert not np.allclose(got[0].cls["test"], got[1].cls["test"])
    images = 5 + 3 + 3 + 2 + 4 + 2
    assert sum(passed) == images if limit == 2**30 else images < sum(passed) <= 2 * images
