"""The probes' metrics, in NumPy and scikit-learn, and the floors that need no backbone. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from lowdata_cpt.data.store import Store, TaskInfo

CHUNK = 64
DepthErrors = tuple[float, float, float]


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


def confusion(
    truth: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int, ignore_index: int
) -> NDArray[np.int64]:
    """Return counts [C, C] (row: truth, column: prediction) over the pixels whose truth is not `ignore_index`."""
    valid = truth != ignore_index
    pairs = truth[valid].astype(np.int64) * classes + predicted[valid]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def segmentation_metrics(counts: NDArray[np.int64]) -> dict[str, float]:
    """Return mIoU and pixel accuracy of a whole split's confusion counts [C, C].

    Classes that occur neither in the truth nor in the predictions are left out of the mean.
    """
    hits = np.diag(counts).astype(np.float64)
    union = counts.sum(0) + counts.sum(1) - np.diag(counts)
    seen = union > 0
    total = counts.sum()
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


def depth_errors(truth: NDArray[np.float32], predicted: NDArray[np.float32], info: TaskInfo) -> list[DepthErrors]:
    """Return (RMSE in metres, AbsRel, δ1) of each image of [M, H, W]; images without a valid pixel are left out.

    Predictions are clamped to `depth_range`; δ1 is the share of pixels with max(p/t, t/p) < 1.25 (Eigen et al. 2014).
    """
    valid = valid_depth(truth, info, crop=True)
    clamped = predicted.clip(*info.depth_range)
    rows = []
    for t_image, p_image, v in zip(truth, clamped, valid, strict=True):
        if v.any():
            t, p = t_image[v].astype(np.float64), p_image[v].astype(np.float64)
            error = p - t
            rows.append(
                (
                    float(np.sqrt((error**2).mean())),
                    float((np.abs(error) / t).mean()),
                    float((np.maximum(p / t, t / p) < 1.25).mean()),
                )
            )
    return rows


def depth_metrics(errors: Iterable[DepthErrors]) -> dict[str, float]:
    """Return the means over images, as is customary on NYUv2."""
    rmse, abs_rel, delta1 = np.array(list(errors)).reshape(-1, 3).mean(0)
    return {"rmse": float(rmse), "abs_rel": float(abs_rel), "delta1": float(delta1)}


def _classification_floor(store: Store, info: TaskInfo) -> dict[str, float]:
    majority = np.bincount(store.labels(info.sets["train"])).argmax()
    truth = np.asarray(store.labels(info.sets["test"]))
    return classification_metrics(truth, np.full_like(truth, majority))


def _segmentation_floor(store: Store, info: TaskInfo) -> dict[str, float]:
    train = np.asarray(store.segmentation(info.sets["train"]))
    classes = len(info.classes)
    majority = np.bincount(train[train != info.ignore_index], minlength=classes).argmax()
    truth = np.asarray(store.segmentation(info.sets["test"]))
    constant = np.full_like(truth, majority)
    return segmentation_metrics(confusion(truth, constant, classes, info.ignore_index))


def _depth_floor(store: Store, info: TaskInfo) -> dict[str, float]:
    train = np.asarray(store.depth(info.sets["train"]))
    mean = train[valid_depth(train, info, crop=False)].mean(dtype=np.float64)
    truth = store.depth(info.sets["test"])
    errors = []
    for start in range(0, len(truth), CHUNK):
        part = np.asarray(truth[start : start + CHUNK])
        errors += depth_errors(part, np.full_like(part, mean), info)
    return depth_metrics(errors)


def floors(store: Store) -> dict[str, dict[str, float]]:
    """Return test metrics per task of predictors that never look at an image.

    Classification and segmentation: the train set's most frequent class; depth: its mean depth.
    """
    by_task = {"classification": _classification_floor, "segmentation": _segmentation_floor, "depth": _depth_floor}
    return {task: by_task[task](store, info) for task, info in store.meta.tasks.items()}
