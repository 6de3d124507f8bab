"""The probes' metrics, in NumPy and scikit-learn, and the trivial baselines that need no backbone. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.store import Store, Task, TaskInfo

CHUNK = 64


def classification_metrics(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> dict[str, float]:
    """Return accuracy and macro-F1 of class ids [M]; F1 is averaged over classes in the truth or the predictions."""
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0)),
    }


def macro_auc(truth: NDArray[np.int64], scores: NDArray[np.floating]) -> float | None:
    """Return the macro one-vs-rest area under the ROC curve of scores [M, C].

    Averaged over the classes that have both positives and negatives in `truth`; None when there is none.
    """
    present = [c for c in np.unique(truth) if (truth != c).any()]
    areas = [roc_auc_score(truth == c, scores[:, c]) for c in present]
    return float(np.mean(areas)) if areas else None


def segmentation_counts(
    truth: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int, ignore_index: int
) -> NDArray[np.int32]:
    """Return hits, truth pixels and predicted pixels of each image and class: [M, C, 3] of maps [M, H, W].

    Pixels whose truth is `ignore_index` do not count.
    """
    counts = np.zeros((len(truth), classes, 3), np.int32)
    for image, (t, p) in enumerate(zip(truth, predicted, strict=True)):
        valid = t != ignore_index
        t, p = t[valid], p[valid]
        for column, values in enumerate((t[t == p], t, p)):
            counts[image, :, column] = np.bincount(values, minlength=classes)
    return counts


def segmentation_metrics(counts: NDArray[np.int32]) -> dict[str, float]:
    """Return mIoU and pixel accuracy of a whole split's counts [M, C, 3] (see `segmentation_counts`).

    Classes that occur neither in the truth nor in the predictions are left out of the mean.
    """
    hits, truth, predicted = counts.sum(0, dtype=np.int64).T
    union = truth + predicted - hits
    seen = union > 0
    total = truth.sum()
    return {
        "miou": float((hits[seen] / union[seen]).mean()) if total else 0.0,
        "pixel_accuracy": float(hits.sum() / total) if total else 0.0,
    }


def valid_depth(truth: NDArray[np.float32], info: TaskInfo, *, crop: bool) -> NDArray[np.bool_]:
    """Return which pixels of [M, H, W] count: depth within `depth_range` and, if `crop`, inside `eval_crop`."""
    low, high = info.depth_range
    valid = (truth >= low) & (truth <= high)
    if crop and info.eval_crop is not None:
        height, width = truth.shape[-2:]
        top, bottom = (round(fraction * height) for fraction in info.eval_crop[:2])
        left, right = (round(fraction * width) for fraction in info.eval_crop[2:])
        inside = np.zeros((height, width), dtype=bool)
        inside[top:bottom, left:right] = True
        valid &= inside
    return valid


def depth_errors(truth: NDArray[np.float32], predicted: NDArray[np.float32], info: TaskInfo) -> NDArray[np.float64]:
    """Return RMSE in metres, AbsRel and δ1 of each image of [M, H, W]: [M, 3]; NaN where no pixel is valid.

    Predictions are clamped to `depth_range`; δ1 is the share of pixels with max(p/t, t/p) < 1.25 (Eigen et al. 2014).
    """
    valid = valid_depth(truth, info, crop=True)
    clamped = predicted.clip(*info.depth_range)
    rows = np.full((len(truth), 3), np.nan)
    for row, t_image, p_image, v in zip(rows, truth, clamped, valid, strict=True):
        if v.any():
            t, p = t_image[v].astype(np.float64), p_image[v].astype(np.float64)
            error = p - t
            row[:] = (
                np.sqrt((error**2).mean()),
                (np.abs(error) / t).mean(),
                (np.maximum(p / t, t / p) < 1.25).mean(),
            )
    return rows


def depth_metrics(errors: NDArray[np.floating]) -> dict[str, float]:
    """Return the means over images [M, 3], as is customary on NYUv2; images without a valid pixel are left out."""
    rmse, abs_rel, delta1 = errors[~np.isnan(errors[:, 0])].mean(0)
    return {"rmse": float(rmse), "abs_rel": float(abs_rel), "delta1": float(delta1)}


def _classification_baseline(store: Store, info: TaskInfo) -> dict[str, float]:
    majority = np.bincount(store.labels(info.sets["train"])).argmax()
    truth = np.asarray(store.labels(info.sets["test"]))
    return classification_metrics(truth, np.full_like(truth, majority))


def _some(store: Store, counted: Iterable[NDArray[np.bool_]], task: Task) -> None:
    for split, pixels in zip(("train", "test"), counted, strict=True):
        if not pixels.any():
            raise UserError(f"{store.root}: no pixel of the {split} images has a {task} label that counts")


def _segmentation_baseline(store: Store, info: TaskInfo) -> dict[str, float]:
    train = np.asarray(store.segmentation(info.sets["train"]))
    classes = len(info.classes)
    truth = np.asarray(store.segmentation(info.sets["test"]))
    _some(store, (train != info.ignore_index, truth != info.ignore_index), "segmentation")
    majority = np.bincount(train[train != info.ignore_index], minlength=classes).argmax()
    constant = np.full_like(truth, majority)
    return segmentation_metrics(segmentation_counts(truth, constant, classes, info.ignore_index))


def _depth_baseline(store: Store, info: TaskInfo) -> dict[str, float]:
    train = np.asarray(store.depth(info.sets["train"]))
    truth = store.depth(info.sets["test"])
    valid = valid_depth(train, info, crop=False)
    _some(store, (valid, valid_depth(np.asarray(truth), info, crop=True)), "depth")
    mean = train[valid].mean(dtype=np.float64)
    errors = [
        depth_errors(part, np.full_like(part, mean), info)
        for part in (np.asarray(truth[start : start + CHUNK]) for start in range(0, len(truth), CHUNK))
    ]
    return depth_metrics(np.concatenate(errors))


def trivial_scores(store: Store) -> dict[Task, dict[str, float]]:
    """Return test metrics per task of predictors that never look at an image.

    Classification and segmentation: the train set's most frequent class; depth: its mean depth.

    Raises:
        UserError: no label of a task counts in the train or the test set.
    """
    score: dict[Task, Callable[[Store, TaskInfo], dict[str, float]]] = {
        "classification": _classification_baseline,
        "segmentation": _segmentation_baseline,
        "depth": _depth_baseline,
    }
    return {task: score[task](store, info) for task, info in store.meta.tasks.items()}
