"""Segmentation and depth probes from feature file to scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lowdata_cpt.probes.run import run_probe

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json
from lowdata_cpt.data.store import Store
from lowdata_cpt.probes import depth, segmentation
from lowdata_cpt.probes.config import DepthConfig, LinearConfig, SegmentationConfig
from tests.probes import synthetic

RECIPE: dict[str, Any] = {"steps": 150, "batch_size": 8, "lr_grid": (1e-4, 3e-2), "train_stride": 2}
CONFIGS = {"segmentation": SegmentationConfig(**RECIPE), "depth": DepthConfig(**RECIPE)}
QUICK = {task: config.model_copy(update={"steps": 10}) for task, config in CONFIGS.items()}
TASKS = list(CONFIGS)


def run(task: str, store: Store, features: Path, out: Path, config: Any = None, **rest: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {"seed": 0, "device": "cpu", "examples": 3} | rest
    return run_probe(task, features, store, config or QUICK[task], out=out, **arguments)


def test_segmentation_toy_is_solved(tmp_path: Path) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    result = run("segmentation", store, features, tmp_path / "out.json", CONFIGS["segmentation"])
    assert result["metrics"]["test"]["pixel_accuracy"] > 0.97
    assert result["metrics"]["test"]["miou"] > 0.93
    assert result["selected"]["lr"] == 3e-2
    assert read_json(tmp_path / "out.json") == result


def test_depth_toy_is_solved(tmp_path: Path) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    test = run("depth", store, features, tmp_path / "out.json", CONFIGS["depth"])["metrics"]["test"]
    assert test["rmse"] < 0.45, "what is left is the blur of bilinear upsampling at the step from 1 m to 3 m"
    assert test["delta1"] > 0.85
    assert test["abs_rel"] < 0.15


@pytest.mark.parametrize("task", TASKS)
def test_examples_are_the_first_test_predictions(tmp_path: Path, task: str) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    run(task, store, features, tmp_path / "few.json")
    run(task, store, features, tmp_path / "all.json", examples=99)
    few, everything = np.load(tmp_path / "few.npy"), np.load(tmp_path / "all.npy")
    assert few.shape == (3, 16, 16)
    assert everything.shape == (12, 16, 16)
    assert few.dtype == (np.uint8 if task == "segmentation" else np.float32)
    assert np.array_equal(few, everything[:3])


@pytest.mark.parametrize("task", TASKS)
def test_twice_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path, task: str) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(task, store, features, tmp_path / f"{name}.json", seed=seed)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert read_json(tmp_path / "a.json")["metrics"] != read_json(tmp_path / "c.json")["metrics"]


@pytest.mark.parametrize("task", TASKS)
def test_test_labels_cannot_change_the_selection(tmp_path: Path, task: str) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    before = run(task, store, features, tmp_path / "out.json")
    for kind in ("segmentation", "depth"):
        path = store.root / f"test.{kind}.npy"
        np.save(path, np.load(path)[::-1, ::-1, ::-1].copy())
    after = run(task, store, features, tmp_path / "out.json")
    assert after["selected"] == before["selected"]
    assert after["metrics"]["val"] == before["metrics"]["val"]
    assert after["metrics"]["test"] != before["metrics"]["test"]


@pytest.mark.parametrize(("task", "module"), [("segmentation", segmentation), ("depth", depth)])
def test_the_test_split_is_read_once_after_selection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, module: Any
) -> None:
    store, features = synthetic.dense_toy(tmp_path, counts={"train": 24, "val": 12, "test": 15})
    loaded: list[str] = []
    evaluated: list[tuple[int, int]] = []
    load, evaluate = module.load, module.evaluate
    monkeypatch.setattr(module, "load", lambda *a: loaded.append(a[3]) or load(*a))
    monkeypatch.setattr(module, "evaluate", lambda *a: evaluated.append((len(a[1]), a[4])) or evaluate(*a))
    result = run(task, store, features, tmp_path / "out.json")
    best = RECIPE["lr_grid"].index(result["selected"]["lr"])
    assert loaded == ["train", "val", "test"]
    assert evaluated == [(12, 0), (12, 1), (15, best)]


@pytest.mark.parametrize("task", TASKS)
def test_selection_is_by_the_stated_validation_metric(tmp_path: Path, task: str) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    result = run(task, store, features, tmp_path / "out.json")
    name, best = ("miou", max) if task == "segmentation" else ("rmse", min)
    scores = result["selected"][f"val_{name}"]
    assert len(scores) == 2
    assert scores[repr(result["selected"]["lr"])] == best(scores.values()) == result["metrics"]["val"][name]


def test_ignored_pixels_do_not_train() -> None:
    maps = torch.randn(2, 4, 4, 3, 5)
    labels = torch.randint(0, 5, (2, 4, 4))
    labels[0] = 255
    ours = segmentation.cross_entropy(maps, labels, 255)
    kept = maps[1].permute(2, 3, 0, 1)
    expected = [torch.nn.functional.cross_entropy(kept[i][None], labels[1][None]) for i in range(3)]
    torch.testing.assert_close(ours, torch.stack(expected))
    assert segmentation.cross_entropy(maps, torch.full_like(labels, 255), 255).tolist() == [0, 0, 0]


def test_invalid_depth_does_not_train() -> None:
    maps = torch.randn(1, 2, 2, 2, 1, requires_grad=True)
    labels = torch.tensor([[[2.0, 0.0], [torch.nan, 11.0]]])
    loss = depth.squared_error(maps, labels, (0.1, 10.0))
    expected = (torch.nn.functional.softplus(maps[0, 0, 0, :, 0]) - 2).square()
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss.sum(), maps)
    assert torch.isfinite(gradient).all()
    assert gradient[0, 0, 0].abs().min() > 0
    assert gradient.abs().sum() == gradient[0, 0, 0].abs().sum()


def test_depth_starts_at_the_train_mean(tmp_path: Path) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    config = DepthConfig(steps=1, batch_size=8, lr_grid=(1e-9,))
    run("depth", store, features, tmp_path / "out.json", config)
    train = store.depth("train")
    assert np.load(tmp_path / "out.npy").mean() == pytest.approx(train[train > 0].mean(), abs=0.1)


def test_a_label_that_is_no_class_is_an_error(tmp_path: Path) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    np.save(store.root / "val.segmentation.npy", np.full((12, 16, 16), 7, dtype=np.uint8))
    with pytest.raises(UserError, match="'val' has label 7; expected 0 to 1 or 255"):
        run("segmentation", store, features, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_a_split_without_valid_depth_is_an_error(tmp_path: Path) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    np.save(store.root / "test.depth.npy", np.zeros((12, 16, 16), dtype=np.float32))
    with pytest.raises(UserError, match="'test' has no pixel within"):
        run("depth", store, features, tmp_path / "out.json")


def test_a_domain_without_the_labels_is_an_error(tmp_path: Path) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    with pytest.raises(UserError, match="no classification labels"):
        run("linear", store, features, tmp_path / "out.json", LinearConfig())


@pytest.mark.parametrize(("task", "config"), [("flow", LinearConfig()), ("depth", LinearConfig())])
def test_an_unknown_probe_or_other_settings_are_an_error(tmp_path: Path, task: str, config: Any) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    with pytest.raises(UserError, match="expected one of"):
        run(task, store, features, tmp_path / "out.json", config)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("task", TASKS)
def test_a_gpu_gives_the_cpu_scores(tmp_path: Path, task: str) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    scores = [run(task, store, features, tmp_path / "o.json", device=d)["metrics"]["test"] for d in ("cpu", "cuda")]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
