"""kNN and linear probe on class tokens. Torch-free; scikit-learn is imported when a probe runs."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.strict import Strict
from lowdata_cpt.data.store import Split, Store, Task
from lowdata_cpt.probes.config import Grid
from lowdata_cpt.probes.result import FeatureSet, Metric, ProbeResult

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

TASK: Task = "classification"
METRICS = (
    Metric("knn_accuracy", "linear", "kNN accuracy", "kNN acc."),
    Metric("knn_macro_f1", "linear", "kNN macro-F1", "kNN F1"),
    Metric("bank_knn_accuracy", "linear", "kNN accuracy, labels of the n images only", "bank kNN acc.", drawn=True),
    Metric("bank_knn_macro_f1", "linear", "kNN macro-F1, labels of the n images only", "bank kNN F1", drawn=True),
    Metric("linear_accuracy", "linear", "Linear accuracy", "linear acc."),
    Metric("linear_macro_f1", "linear", "Linear macro-F1", "linear F1"),
    Metric("linear_auc", "linear", "Linear AUC", "linear AUC"),
)
Features = NDArray[np.float64]
Labels = NDArray[np.int64]
NEIGHBOURS = 4


class Config(Strict):
    """kNN on L2-normalised class tokens, and logistic regression on the same, centred and scaled to unit norm again."""

    k: int = Field(default=20, ge=1, le=10**6, description="Neighbours; min(k, number of train images) are used.")
    c_grid: Grid = Field(
        default=(1.0, 10.0, 100.0, 1000.0, 10_000.0),
        description="Inverse regularisation strengths, ascending; the best macro-F1 on validation is taken.",
    )
    max_iter: int = Field(default=1000, ge=1, le=10**7, description="L-BFGS iterations at most for each C.")
    bank: Literal["clean", "augmented"] = Field(
        default="clean",
        description="Train features: of the images as they are, or augmented once (as DIET-CP's authors do).",
    )
    bank_of_n: bool = Field(
        default=False,
        description="Also kNN with a bank of the n drawn images alone, as DIET-CP's authors evaluate: bank_knn_*.",
    )


def normalise(features: NDArray[Any]) -> Features:
    """Divide each row of [M, D] by its L2 norm, in float64."""
    wide: Features = features.astype(np.float64)
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return wide


def centre_and_scale(x: dict[Split, Features]) -> dict[Split, Features]:
    """Subtract the train mean and divide by one number, so that the train features' mean squared norm is one again.

    Relative sizes and directions stay. Features of one backbone may differ by 1e-6 and another's by 1e-2 after L2
    normalisation; without a common scale one grid of C cannot serve both, and the first would look blind.
    """
    mean = x["train"].mean(0)
    scale = max(float(np.sqrt(x["train"].var(0).sum())), 1e-12)
    return {split: (values - mean) / scale for split, values in x.items()}


def fit_knn(x: Features, y: Labels, config: Config) -> KNeighborsClassifier:
    """Fit kNN with k = min(config.k, N), cosine distance, votes weighted by inverse distance (2509.06990)."""
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(min(config.k, len(x)), metric="cosine", weights="distance", algorithm="brute").fit(x, y)


def fit_linear(
    x: Features, y: Labels, x_val: Features, y_val: Labels, config: Config
) -> tuple[LogisticRegression, dict[str, Any]]:
    """Fit logistic regression on train for each C and return the one with the best validation macro-F1.

    Ties go to the strongest regularisation. Each fit starts from the last one's weights.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    from lowdata_cpt.probes.metrics import classification_metrics

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


def predictions(
    knn: KNeighborsClassifier, linear: LogisticRegression, x: Features, z: Features, classes: int
) -> tuple[dict[str, Labels], Features]:
    """Return both classifiers' class ids [M] and the linear one's probabilities [M, C].

    kNN reads the normalised features x, the linear classifier z, the same centred and scaled. A class the train set
    lacks gets the same probability for every image, hence an AUC of one half.
    """
    scores = np.zeros((len(x), classes))
    scores[:, linear.classes_] = linear.predict_proba(z)
    return {"knn": knn.predict(x), "linear": linear.predict(z)}, scores


def neighbours(knn: KNeighborsClassifier, x: Features, examples: int) -> dict[str, NDArray[np.int64]]:
    """Return `rows` of evenly spaced test images and, for each, the `train_rows` of its nearest images."""
    rows = (
        np.unique(np.linspace(0, len(x) - 1, examples).round().astype(np.int64)) if examples else np.zeros(0, np.int64)
    )
    near = min(NEIGHBOURS, knn.n_neighbors)
    found = knn.kneighbors(x[rows], near, return_distance=False) if len(rows) else np.zeros((0, near), np.int64)
    return {"rows": rows, "train_rows": found}


def run(
    features: FeatureSet,
    store: Store,
    config: Config,
    *,
    seed: int = 0,
    device: object = None,
    examples: int = 0,
    drawn: frozenset[str] = frozenset(),
) -> ProbeResult:
    """Run kNN and the linear probe; the test split is read once, after C is chosen.

    Args:
        features: class tokens of the task's sets.
        store: labels.
        config: settings.
        seed, device: not used: nothing is random here, and nothing needs a device.
        examples: test images whose neighbours are shown.
        drawn: sha256 of the n unlabelled images, for `bank_of_n`.

    Returns:
        `outcomes`: predicted class ids int16 [M] of knn and linear (and bank_knn).

    Raises:
        UserError: the train split has fewer than two classes, or labels go beyond the named classes.
    """
    from lowdata_cpt.probes.metrics import classification_metrics, macro_auc

    info = store.task(TASK)
    labels: dict[Split, Labels] = {}
    x: dict[Split, Features] = {}
    for split, name in info.sets.items():
        source = features.augmented if split == "train" and config.bank == "augmented" else features.cls
        x[split], labels[split] = normalise(source[name]), np.asarray(store.labels(name))
        if labels[split].min() < 0 or labels[split].max() >= len(info.classes):
            raise UserError(f"{store.root}: labels of set {name!r} go beyond the {len(info.classes)} named classes")
    if len(np.unique(labels["train"])) < 2:
        raise UserError(f"{store.root}: the classification train set has one class only; at least two are needed")
    classes = len(info.classes)
    knn = fit_knn(x["train"], labels["train"], config)
    z = centre_and_scale(x)
    linear, selected = fit_linear(z["train"], labels["train"], z["val"], labels["val"], config)
    own = np.flatnonzero(store.rows(info.sets["train"])["sha256"].isin(drawn)) if config.bank_of_n else np.zeros(0, int)
    bank = fit_knn(x["train"][own], labels["train"][own], config) if len(own) else None
    metrics: dict[Split, dict[str, float]] = {}
    outcomes: dict[str, Labels] = {}
    scored: tuple[Split, Split] = ("val", "test")
    for split in scored:
        outcomes, scores = predictions(knn, linear, x[split], z[split], classes)
        if bank is not None:
            outcomes["bank_knn"] = bank.predict(x[split])
        truth = labels[split]
        metrics[split] = {
            f"{name}_{metric}": value
            for name, found in outcomes.items()
            for metric, value in classification_metrics(truth, found).items()
        }
        if (auc := macro_auc(truth, scores)) is not None:  # None: the split has a single class
            metrics[split]["linear_auc"] = auc
    missing = {
        split: [name for i, name in enumerate(info.classes) if i not in set(y.tolist())] for split, y in labels.items()
    }
    counts: dict[str, Any] = {split: len(y) for split, y in labels.items()}
    return ProbeResult(
        metrics=metrics,
        selected=selected | {"k": int(knn.n_neighbors), "bank": config.bank},
        counts=counts | {"classes": classes, "classes_missing": missing, "bank_of_n": len(own)},
        outcomes={name: found.astype(np.int16) for name, found in outcomes.items()},
        examples=neighbours(knn, x["test"], examples),
    )
