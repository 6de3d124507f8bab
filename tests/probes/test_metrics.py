"""Metrics against torchmetrics and scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_percentage_error, roc_auc_score, root_mean_squared_error
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score, MulticlassJaccardIndex

from lowdata_cpt.data.store import TaskInfo
from lowdata_cpt.probes import metrics
from tests.probes import synthetic

IGNORE = 255


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_classification_metrics_match_torchmetrics(rng: np.random.Generator) -> None:
    truth, predicted = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    ours = metrics.classification_metrics(truth, predicted)
    t, p = torch.from_numpy(truth), torch.from_numpy(predicted)
    assert ours["accuracy"] == pytest.approx(MulticlassAccuracy(5, average="micro")(p, t).item())
    assert ours["macro_f1"] == pytest.approx(MulticlassF1Score(5, average="macro")(p, t).item())


def test_macro_auc_matches_both_references(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 4, 300)
    scores = rng.random((300, 4))
    scores /= scores.sum(1, keepdims=True)
    ours = metrics.macro_auc(truth, scores)
    assert ours == pytest.approx(roc_auc_score(truth, scores, multi_class="ovr", average="macro"))
    reference = MulticlassAUROC(4, average="macro")(torch.from_numpy(scores), torch.from_numpy(truth))
    assert ours == pytest.approx(reference.item(), abs=1e-6)


def test_macro_auc_averages_only_classes_that_occur(rng: np.random.Generator) -> None:
    truth, scores = rng.integers(0, 2, 50), rng.random((50, 3))
    expected = np.mean([roc_auc_score(truth == c, scores[:, c]) for c in (0, 1)])
    assert metrics.macro_auc(truth, scores) == pytest.approx(expected)
    assert metrics.macro_auc(np.zeros(5, dtype=np.int64), rng.random((5, 3))) is None


def test_segmentation_metrics_match_torchmetrics_with_ignored_pixels(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 4, (6, 9, 9)).astype(np.uint8)
    predicted = np.where(rng.random(truth.shape) < 0.5, truth, rng.integers(0, 4, truth.shape)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.3] = IGNORE
    ours = metrics.segmentation_metrics(metrics.segmentation_counts(truth, predicted, 4, IGNORE))
    t, p = torch.from_numpy(truth.astype(np.int64)), torch.from_numpy(predicted.astype(np.int64))
    assert ours["miou"] == pytest.approx(MulticlassJaccardIndex(4, ignore_index=IGNORE)(p, t).item())
    reference = MulticlassAccuracy(4, average="micro", ignore_index=IGNORE)(p, t).item()
    assert ours["pixel_accuracy"] == pytest.approx(reference)


def test_counts_are_of_each_image_and_class(rng: np.random.Generator) -> None:
    truth, predicted = (rng.integers(0, 3, (4, 6, 5)).astype(np.uint8) for _ in range(2))
    truth[:, 0] = IGNORE
    counts = metrics.segmentation_counts(truth, predicted, 3, IGNORE)
    assert counts.dtype == np.int32
    for image in range(4):
        t, p = truth[image, 1:], predicted[image, 1:]
        expected = [[((t == c) & (p == c)).sum(), (t == c).sum(), (p == c).sum()] for c in range(3)]
        assert counts[image].tolist() == expected


def test_a_class_absent_from_truth_and_prediction_is_left_out_and_a_false_alarm_is_not() -> None:
    truth = np.zeros((1, 2, 2), dtype=np.uint8)
    absent = metrics.segmentation_metrics(metrics.segmentation_counts(truth, truth, 3, IGNORE))
    assert absent["miou"] == 1.0
    alarm = truth.copy()
    alarm[0, 0, 0] = 2
    assert metrics.segmentation_metrics(metrics.segmentation_counts(truth, alarm, 3, IGNORE))["miou"] == pytest.approx(
        0.375
    )


def test_depth_metrics_match_scikit_learn_per_image(rng: np.random.Generator) -> None:
    info = TaskInfo(sets=synthetic.splits(), depth_range=(0.5, 5.0))
    truth = rng.uniform(0.5, 5, (4, 8, 8)).astype(np.float32)
    predicted = rng.uniform(0.5, 5, truth.shape).astype(np.float32)
    ours = metrics.depth_metrics(metrics.depth_errors(truth, predicted, info))
    pairs = list(zip(truth.reshape(4, -1), predicted.reshape(4, -1), strict=True))
    assert ours["rmse"] == pytest.approx(np.mean([root_mean_squared_error(t, p) for t, p in pairs]), rel=1e-6)
    reference = np.mean([mean_absolute_percentage_error(t, p) for t, p in pairs])
    assert ours["abs_rel"] == pytest.approx(reference, rel=1e-6)
    assert ours["delta1"] == pytest.approx(np.mean([(np.maximum(t / p, p / t) < 1.25).mean() for t, p in pairs]))


def test_depth_counts_neither_invalid_pixels_nor_pixels_outside_the_crop() -> None:
    info = TaskInfo(sets=synthetic.splits(), depth_range=(0.5, 5.0), eval_crop=(0.25, 1.0, 0.5, 1.0))
    truth = np.full((2, 8, 8), 2.0, dtype=np.float32)
    truth[:, :2], truth[:, :, :4] = 4.0, 4.0  # outside the crop
    truth[0, 3, 5:], truth[0, 4, 5], truth[0, 5, 5] = 0.0, np.nan, 9.0  # not measured, NaN, beyond the range
    truth[1] = 0.0  # an image without any depth
    predicted = np.full_like(truth, 2.0)
    errors = metrics.depth_errors(truth, predicted, info)
    assert errors[0].tolist() == [0.0, 0.0, 1.0]
    assert np.isnan(errors[1]).all()
    assert metrics.depth_metrics(errors) == {"rmse": 0.0, "abs_rel": 0.0, "delta1": 1.0}
    whole = TaskInfo(sets=synthetic.splits(), depth_range=(0.5, 5.0))
    assert metrics.depth_errors(truth, predicted, whole)[0][0] > 0


def test_predicted_depth_is_clamped_to_the_range() -> None:
    info = TaskInfo(sets=synthetic.splits(), depth_range=(1.0, 5.0))
    truth = np.full((1, 4, 4), 5.0, dtype=np.float32)
    assert metrics.depth_errors(truth, np.full_like(truth, 80.0), info).tolist() == [[0.0, 0.0, 1.0]]


def test_trivial_predictors_are_the_majority_class_and_the_mean_depth(tmp_path: Path) -> None:
    store, _ = synthetic.dense_toy(tmp_path / "dense")
    trivial = metrics.trivial_scores(store)
    train, test = store.depth("train"), store.depth("test")
    mean = train[train > 0].mean()
    rows = [(np.abs(t[t > 0] - mean) / t[t > 0]).mean() for t in test]
    assert trivial["depth"]["abs_rel"] == pytest.approx(np.mean(rows), rel=1e-5)
    labelled, _ = synthetic.linear_toy(tmp_path / "linear")
    assert metrics.trivial_scores(labelled)["classification"]["accuracy"] == pytest.approx(1 / 3)


def test_the_majority_is_the_train_sets(tmp_path: Path) -> None:
    maps = {"train": [[1, 1], [1, 0]], "val": [[1, 1], [1, 0]], "test": [[1, 1], [0, 255]]}
    labels = {"train": [2, 2, 0, 1], "val": [0], "test": [2, 1, 0, 0, 0]}
    dense: dict[str, dict[str, np.ndarray]] = {
        split: {"images": np.zeros((1, 2, 2, 3), np.uint8), "segmentation": np.array([classes], np.uint8)}
        for split, classes in maps.items()
    }
    task = {"segmentation": {"sets": synthetic.splits(), "classes": ["a", "b"]}}
    found = metrics.trivial_scores(synthetic.write_store(tmp_path / "dense", dense, task))["segmentation"]
    assert found == pytest.approx({"pixel_accuracy": 2 / 3, "miou": (0 + 2 / 3) / 2})
    classes = {split: {"labels": np.array(ids, np.int64)} for split, ids in labels.items()}
    task = {"classification": {"sets": synthetic.splits(), "classes": ["a", "b", "c"]}}
    found = metrics.trivial_scores(synthetic.write_store(tmp_path / "labels", classes, task))["classification"]
    assert found["accuracy"] == pytest.approx(1 / 5)


def test_the_ends_of_the_range_count_and_a_ratio_of_one_and_a_quarter_does_not() -> None:
    info = TaskInfo(sets=synthetic.splits(), depth_range=(0.5, 5.0), eval_crop=(0.25, 0.6, 0.3, 0.9))
    truth = np.array([[[0.5, 5.0, 4.0]]], np.float32)
    predicted = np.array([[[0.625, 4.0, 4.0]]], np.float32)
    whole = info.model_copy(update={"eval_crop": None})
    assert metrics.valid_depth(truth, whole, crop=True).all()
    rmse, abs_rel, delta1 = metrics.depth_errors(truth, predicted, whole)[0]
    assert (delta1, abs_rel) == (pytest.approx(1 / 3), pytest.approx((0.25 + 0.2) / 3))
    assert rmse == pytest.approx(((0.125**2 + 1) / 3) ** 0.5)
    inside = metrics.valid_depth(np.ones((2, 10, 20), np.float32), info, crop=True)
    assert [np.flatnonzero(inside[1].any(axis)).tolist() for axis in (1, 0)] == [[2, 3, 4, 5], list(range(6, 18))]
    assert metrics.valid_depth(np.ones((2, 10, 20), np.float32), info, crop=False).all()


def test_nothing_labelled_is_no_hit() -> None:
    nothing = metrics.segmentation_counts(
        np.full((1, 2, 2), IGNORE, np.uint8), np.zeros((1, 2, 2), np.uint8), 2, IGNORE
    )
    assert metrics.segmentation_metrics(nothing) == {"miou": 0.0, "pixel_accuracy": 0.0}
