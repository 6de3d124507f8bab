"""Logistic regression over a grid of regularisation: the probe's own fit, against scikit-learn as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from benchmarks.harness import Case
from lowdata_cpt.probes.linear import Config, centre_and_scale, fit_linear, normalise
from lowdata_cpt.probes.metrics import classification_metrics


def problem(count: int, width: int, classes: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return features and labels of train and val: overlapping classes, normalised as the probe does."""
    random = np.random.default_rng(0)
    centres = random.normal(0, 1, (classes, width)) * 0.6
    labels = {split: random.integers(0, classes, count) for split in ("train", "val")}
    spread = np.geomspace(3, 0.3, width)  # a few directions carry most of the variance, as in tokens
    raw = {split: normalise(centres[y] + random.normal(0, 1, (count, width)) * spread) for split, y in labels.items()}
    scaled = centre_and_scale(raw)  # type: ignore[arg-type]
    return {split: (scaled[split], labels[split]) for split in labels}  # type: ignore[index]


def objective(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    """Return mean cross-entropy + ‖W‖² / 2CN."""
    loss = -np.log(model.predict_proba(x)[np.arange(len(y)), y]).mean()
    return float(loss + (model.coef_**2).sum() / (2 * model.C * len(y)))


def cases(small: bool) -> Iterator[Case]:
    """Yield a row for either way to call scikit-learn."""
    grid = tuple(np.logspace(-3, 3, 5 if small else 45).tolist())
    sets = problem(*((60, 16, 3) if small else (1000, 384, 10)))
    config = Config(c_grid=grid, max_iter=1000)
    (x, y), (x_val, y_val) = sets["train"], sets["val"]

    def plain(warm: bool) -> tuple[Any, dict[str, Any]]:
        scores: dict[float, float] = {}
        best: Any = None
        model = LogisticRegression(max_iter=1000, warm_start=True)
        for c in grid:
            model = model.set_params(C=c) if warm else LogisticRegression(C=c, max_iter=1000)
            model.fit(x, y)
            score = classification_metrics(y_val, model.predict(x_val))["macro_f1"]
            if best is None or score > max(scores.values()):
                best = LogisticRegression(C=c)
                best.coef_, best.intercept_, best.classes_ = model.coef_.copy(), model.intercept_.copy(), model.classes_
            scores[c] = score
        return best, scores

    def parity(ours: tuple[Any, dict[str, Any]], other: tuple[Any, dict[str, Any]]) -> str:
        assert ours[0].C == other[0].C, f"C is {ours[0].C:.3g} and {other[0].C:.3g}"
        gap = abs(objective(ours[0], x, y) - objective(other[0], x, y))
        assert gap <= 1e-4, f"objectives are {gap:.1e} apart"
        return f"same C, objectives equal to {gap:.0e}"

    for name, warm in (("warm", True), ("cold", False)):
        yield Case(
            f"logistic regression, {len(grid)} values of C, beside scikit-learn {name}",
            f"scikit-learn, {'each fit from the last' if warm else 'each fit from zero'}",
            5.0,
            lambda: fit_linear(x, y, x_val, y_val, config),
            lambda warm=warm: plain(warm),
            parity,
        )
