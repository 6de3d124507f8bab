"""Segmentation and depth probes from features to scores and per-image outcomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.store import Store
from lowdata_cpt.probes import dense, depth, linear, segmentation
from lowdata_cpt.probes.registry import PROBES
from lowdata_cpt.probes.result import FeatureSet, ProbeResult
from tests.probes import synthetic

RECIPE: dict[str, Any] = {"steps": 150, "batch_size": 8, "lr_grid": (1e-4, 3e-2), "train_stride": 2}
CONFIGS = {"segmentation": segmentation.Config(**RECIPE), "depth": depth.Config(**RECIPE)}
QUICK = {task: config.model_copy(update={"steps": 10}) for task, config in CONFIGS.items()}
TASKS = list(CONFIGS)
OUTCOME = {"segmentation": "counts", "depth": "errors"}
CLASSES = {"segmentation": segmentation.Segmentation, "depth": depth.Depth}


def run(task: str, store: Store, features: FeatureSet, config: Any = None, **rest: Any) -> ProbeResult:
    arguments: dict[str, Any] = {"seed": 0, "device": torch.device("cpu"), "examples": 3} | rest
    found: ProbeResult = PROBES[task].run(features, store, config or QUICK[task], **arguments)
    return found


def same(a: ProbeResult, b: ProbeResult) -> bool:
    pairs = [(a.outcomes, b.outcomes), (a.examples, b.examples)]
    return a.summary() == b.summary() and all(np.array_equal(x[k], y[k]) for x, y in pairs for k in x)


def test_segmentation_toy_is_solved(tmp_path: Path) -> None:
    result = run("segmentation", *synthetic.dense_toy(tmp_path), CONFIGS["segmentation"])
    assert result.metrics["test"]["pixel_accuracy"] > 0.97
    assert result.metrics["test"]["miou"] > 0.93
    assert result.selected["lr"] == 3e-2


def test_depth_toy_is_solved(tmp_path: Path) -> None:
    test = run("depth", *synthetic.dense_toy(tmp_path), CONFIGS["depth"]).metrics["test"]
    assert test["rmse"] < 0.45, "what is left is the blur of bilinear upsampling at the step from 1 m to 3 m"
    assert test["delta1"] > 0.85
    assert test["abs_rel"] < 0.15


@pytest.mark.parametrize("task", TASKS)
def test_examples_are_the_first_test_predictions(tmp_path: Path, task: str) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    few = run(task, store, features).examples["predicted"]
    everything = run(task, store, features, examples=99).examples["predicted"]
    assert few.shape == (3, 16, 16)
    assert everything.shape == (12, 16, 16)
    assert few.dtype == (np.uint8 if task == "segmentation" else np.float32)
    assert np.array_equal(few, everything[:3])


def test_counts_are_the_predictions_and_miou_is_theirs(tmp_path: Path) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    found = run("segmentation", store, features, examples=99)
    counts, predicted, truth = found.outcomes["counts"], found.examples["predicted"], store.segmentation("test")
    assert counts.dtype == np.int32
    for c in range(2):
        hits = ((truth == c) & (predicted == c)).sum((1, 2))
        labelled = ((predicted == c) & (truth != 255)).sum((1, 2))
        assert counts[:, c].tolist() == np.stack([hits, (truth == c).sum((1, 2)), labelled], 1).tolist()
    hits, true, guessed = counts.sum(0).T
    assert found.metrics["test"]["miou"] == float((hits / (true + guessed - hits)).mean())
    assert found.metrics["test"]["pixel_accuracy"] == hits.sum() / true.sum()


def test_errors_are_the_predictions_and_rmse_is_their_mean(tmp_path: Path) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    blank = np.array(store.depth("test"))
    blank[4] = 0  # an image without any depth
    synthetic.replace(store, "test.depth.npy", blank)
    found = run("depth", store, features, examples=99)
    errors, predicted = found.outcomes["errors"], found.examples["predicted"]
    assert np.isnan(errors[4]).all()
    for i in (0, 11):
        t, p = (a[i][blank[i] > 0].astype(np.float64) for a in (blank, predicted))
        expected = [np.sqrt(((p - t) ** 2).mean()), (abs(p - t) / t).mean(), (np.maximum(p / t, t / p) < 1.25).mean()]
        assert errors[i] == pytest.approx(expected)
    means = np.nanmean(errors, 0).tolist()
    assert list(found.metrics["test"].values()) == pytest.approx(means, rel=1e-12)
    assert np.nanmean(errors.astype(np.float32), 0).tolist() == pytest.approx(means, rel=1e-6), "as it is stored"


@pytest.mark.parametrize("task", TASKS)
def test_probe_seeds_pool_what_single_seeds_predict(tmp_path: Path, task: str) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    for patches in features.patches.values():  # noise, so that heads of other seeds predict otherwise
        patches += np.random.default_rng(1).normal(0, 3, patches.shape).astype(np.float16)
    one = QUICK[task].model_copy(update={"lr_grid": (1e-2,)})
    pooled = run(task, store, features, one.model_copy(update={"probe_seeds": 3}))
    name, alone = OUTCOME[task], [run(task, store, features, one, seed=dense.SEED_STRIDE * i) for i in range(3)]
    outcomes = [found.outcomes[name] for found in alone]
    assert not np.array_equal(outcomes[0], outcomes[1])
    assert not np.array_equal(outcomes[1], outcomes[2])
    if task == "segmentation":
        assert np.array_equal(pooled.outcomes[name], sum(outcomes))
    else:
        np.testing.assert_allclose(pooled.outcomes[name], np.mean(outcomes, axis=0), rtol=1e-12)
    assert np.array_equal(pooled.examples["predicted"], alone[0].examples["predicted"]), "the first head's"


@pytest.mark.parametrize("task", TASKS)
def test_the_rate_is_chosen_on_all_probe_seeds(tmp_path: Path, task: str) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    config = QUICK[task].model_copy(update={"probe_seeds": 2})
    found = run(task, store, features, config)
    (scores,) = (value for key, value in found.selected.items() if key.startswith("val_"))
    for lr in config.lr_grid:
        alone = run(task, store, features, config.model_copy(update={"lr_grid": (lr,)}))
        (expected,) = (value for key, value in alone.selected.items() if key.startswith("val_"))
        assert scores[repr(lr)] == pytest.approx(expected[repr(lr)], abs=1e-3)


@pytest.mark.parametrize("task", TASKS)
def test_twice_gives_the_same_and_another_seed_does_not(tmp_path: Path, task: str) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    a, b, c = (run(task, store, features, seed=seed) for seed in (0, 0, 1))
    assert same(a, b)
    assert a.metrics != c.metrics


@pytest.mark.parametrize("task", TASKS)
def test_test_labels_cannot_change_the_selection(tmp_path: Path, task: str) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    before = run(task, store, features)
    for kind in ("segmentation", "depth"):
        path = store.root / f"test.{kind}.npy"
        synthetic.replace(store, path.name, np.load(path)[::-1, ::-1, ::-1].copy())
    after = run(task, store, features)
    assert after.selected == before.selected
    assert after.metrics["val"] == before.metrics["val"]
    assert after.metrics["test"] != before.metrics["test"]


@pytest.mark.parametrize("task", TASKS)
def test_the_test_split_is_read_once_after_selection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    store, features = synthetic.dense_toy(tmp_path, counts={"train": 24, "val": 12, "test": 15})
    loaded: list[str] = []
    evaluated: list[tuple[int, int]] = []
    load, evaluate = CLASSES[task].labels, dense.evaluate

    def labels(self: Any, name: str, *, counted: bool) -> Any:
        loaded.append(name)
        return load(self, name, counted=counted)

    monkeypatch.setattr(CLASSES[task], "labels", labels)
    monkeypatch.setattr(dense, "evaluate", lambda *a: evaluated.append((len(a[2]), a[4])) or evaluate(*a))
    result = run(task, store, features)
    best = RECIPE["lr_grid"].index(result.selected["lr"])
    assert loaded == ["train", "val", "test"]
    assert evaluated == [(12, 0), (12, 1), (15, best)]


@pytest.mark.parametrize("task", TASKS)
def test_selection_is_by_the_stated_validation_metric(tmp_path: Path, task: str) -> None:
    result = run(task, *synthetic.dense_toy(tmp_path))
    name, best = ("miou", max) if task == "segmentation" else ("rmse", min)
    scores = result.selected[f"val_{name}"]
    assert len(set(scores.values())) == 2
    assert scores[repr(result.selected["lr"])] == best(scores.values()) == result.metrics["val"][name]


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
    found = run("depth", store, features, depth.Config(steps=1, batch_size=8, lr_grid=(1e-9,)))
    train = store.depth("train")
    assert found.examples["predicted"].mean() == pytest.approx(train[train > 0].mean(), abs=0.1)


def test_a_label_that_is_no_class_is_an_error(tmp_path: Path) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    synthetic.replace(store, "val.segmentation.npy", np.full((12, 16, 16), 7, dtype=np.uint8))
    with pytest.raises(UserError, match="'val' has label 7; expected 0 to 1 or 255"):
        run("segmentation", store, features)


def test_a_split_without_any_class_is_an_error(tmp_path: Path) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    synthetic.replace(store, "test.segmentation.npy", np.full((12, 16, 16), 255, dtype=np.uint8))
    with pytest.raises(UserError, match="'test' is void everywhere"):
        run("segmentation", store, features)


def test_a_split_without_valid_depth_is_an_error(tmp_path: Path) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    synthetic.replace(store, "test.depth.npy", np.zeros((12, 16, 16), dtype=np.float32))
    with pytest.raises(UserError, match="'test' has no pixel within"):
        run("depth", store, features)


def test_a_domain_without_the_labels_is_an_error(tmp_path: Path) -> None:
    store, features = synthetic.dense_toy(tmp_path)
    with pytest.raises(UserError, match="no classification labels"):
        linear.run(features, store, linear.Config())
