"""kNN and linear probe on class tokens. Reads safetensors with NumPy and needs no torch, so that it starts fast."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.store import Store
from lowdata_cpt.probes import feature_file
from lowdata_cpt.probes.config import LinearConfig
from lowdata_cpt.probes.metrics import classification_metrics, macro_auc

Features = NDArray[np.float64]
Labels = NDArray[np.int64]
NEIGHBOURS = 4


def normalise(features: NDArray[Any]) -> Features:
    """Divide each row of [M, D] by its L2 norm, in float64."""
    wide: Features = features.astype(np.float64)
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return wide


def centre_and_scale(x: dict[str, Features]) -> dict[str, Features]:
    """Subtract the train mean and divide by one number, so that the train features' mean squared norm is one again.

    Relative sizes and directions stay. Features of one backbone may differ by 1e-6 and another's by 1e-2 after L2
    normalisation; without a common scale one grid of C cannot serve both, and the first would look blind.
    """
    mean = x["train"].mean(0)
    scale = max(float(np.sqrt(x["train"].var(0).sum())), 1e-12)
    return {split: (values - mean) / scale for split, values in x.items()}


def fit_knn(x: Features, y: Labels, config: LinearConfig) -> KNeighborsClassifier:
    """Fit kNN with k = min(config.k, N), cosine distance, votes weighted by inverse distance (2509.06990)."""
    return KNeighborsClassifier(min(config.k, len(x)), metric="cosine", weights="distance", algorithm="brute").fit(x, y)


def fit_linear(
    x: Features, y: Labels, x_val: Features, y_val: Labels, config: LinearConfig
) -> tuple[LogisticRegression, dict[str, Any]]:
    """Fit logistic regression on train for each C and return the one with the best validation macro-F1.

    Ties go to the strongest regularisation. Each fit starts from the last one's weights.
    """
    best: LogisticRegression | None = None
    scores: dict[str, float] = {}
    converged = True
    model = LogisticRegression(max_iter=config.max_iter, warm_start=True)
    for c in config.c_grid:
        model.set_params(C=c)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit(x, y)
        score = classification_metrics(y_val, model.predict(x_val))["macro_f1"]
        if best is None or score > max(scores.values()):
            best = copy.deepcopy(model)
            converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
        scores[repr(c)] = score
    assert best is not None, "the grid of C is never empty"
    return best, {"c": float(best.C), "converged": converged, "val_macro_f1": scores}


def evaluate(
    knn: KNeighborsClassifier, linear: LogisticRegression, x: Features, z: Features, y: Labels, classes: int
) -> dict[str, float]:
    """Return both classifiers' metrics on one split; `linear_auc` is left out when the split has a single class.

    kNN reads the normalised features x, the linear classifier z, the same centred and scaled. A class the train set
    lacks gets the same score for every image, hence an AUC of one half.
    """
    metrics = {f"knn_{name}": value for name, value in classification_metrics(y, knn.predict(x)).items()}
    metrics |= {f"linear_{name}": value for name, value in classification_metrics(y, linear.predict(z)).items()}
    scores = np.zeros((len(x), classes))
    scores[:, linear.classes_] = linear.predict_proba(z)
    auc = macro_auc(y, scores)
    return metrics if auc is None else metrics | {"linear_auc": auc}


def neighbours(knn: KNeighborsClassifier, x: Features, examples: int) -> dict[str, Any]:
    """Return `rows` of evenly spaced test images and, for each, the `train_rows` of its nearest images."""
    rows = np.unique(np.linspace(0, len(x) - 1, examples).round().astype(int)) if examples else np.arange(0)
    found = knn.kneighbors(x[rows], min(NEIGHBOURS, knn.n_neighbors), return_distance=False) if len(rows) else rows
    return {"rows": rows.tolist(), "train_rows": found.tolist()}


def probe(features: Path, store: Store, config: LinearConfig, examples: int = 0) -> dict[str, Any]:
    """Run kNN and the linear probe; the test split is read once, after C is chosen.

    Returns:
        metrics (val, test), selected, counts, and the neighbours of `examples` test images.

    Raises:
        UserError: the features do not fit the store, or the train split has fewer than two classes.
    """
    info = store.task("classification")
    labels: dict[str, Labels] = {}
    x: dict[str, Features] = {}
    for split, name in info.sets.items():
        kind = "cls_augmented" if split == "train" and config.bank == "augmented" else "cls"
        x[split] = normalise(feature_file.read(features, store, name, kind))
        labels[split] = np.asarray(store.labels(name))
        if labels[split].min() < 0 or labels[split].max() >= len(info.classes):
            raise UserError(f"{store.root}: labels of set {name!r} go beyond the {len(info.classes)} named classes")
    if len(np.unique(labels["train"])) < 2:
        raise UserError(f"{store.root}: the classification train set has one class only; at least two are needed")
    knn = fit_knn(x["train"], labels["train"], config)
    z = centre_and_scale(x)
    linear, selected = fit_linear(z["train"], labels["train"], z["val"], labels["val"], config)
    metrics = {
        split: evaluate(knn, linear, x[split], z[split], labels[split], len(info.classes)) for split in ("val", "test")
    }
    missing = {
        split: [name for i, name in enumerate(info.classes) if i not in set(y.tolist())] for split, y in labels.items()
    }
    return {
        "metrics": metrics,
        "neighbours": neighbours(knn, x["test"], examples),
        "selected": selected | {"k": int(knn.n_neighbors), "bank": config.bank},
        "counts": {split: len(y) for split, y in labels.items()}
        | {"classes": len(info.classes), "classes_missing": missing},
    }
