from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import devices
from lowdata_cpt.core.io import write_json


def folder(root: Path, knn: dict[tuple[int, int], float], loss: list[float], rmse: float = 2.0) -> Path:
    """A study's folder with a cell a seed: `knn` by (seed, images seen), and the training loss of seed 0."""
    for seed in sorted({seed for seed, _ in knn}):
        cell = root / "cells" / "b" / "steel" / "dino" / "n100" / f"s{seed}"
        probes = {
            str(images): {
                "linear": {"metrics": {"test": {"knn_accuracy": value, "knn_macro_f1": 0.0}}},
                "depth": {"metrics": {"test": {"rmse": rmse}}},
            }
            for (of, images), value in knn.items()
            if of == seed
        }
        write_json(cell / "evaluation.json", {"milestones": probes})
    log = pd.DataFrame({"step": range(len(loss)), "images_seen": 0, "part": "loss", "value": loss})
    log.to_csv(root / "cells" / "b" / "steel" / "dino" / "n100" / "s0" / "log.csv", index=False)
    return root


def test_scores_are_compared_where_both_have_the_cell_and_training_began(tmp_path: Path) -> None:
    first = folder(
        tmp_path / "a", {(0, 0): 0.1, (0, 10): 0.50, (0, 20): 0.60, (1, 10): 0.54, (1, 20): 0.60}, [2.0, 1.0]
    )
    second = folder(tmp_path / "b", {(0, 0): 0.9, (0, 10): 0.53, (0, 20): 0.59}, [2.0, 1.1], rmse=2.5)
    knn, depth = devices.compare(devices.scores_of(first), devices.scores_of(second))
    assert (knn["method"], knn["metric"], knn["cells"], knn["scores"]) == ("dino", "knn_accuracy", 1, 2)
    assert (knn["mean"], knn["largest"]) == (2.0, 3.0)
    assert knn["between_seeds"] == pytest.approx(100 * 0.04 / 2**0.5 / 2, abs=0.01)  # of .50 and .54, and of equal ones
    assert (depth["mean"], depth["between_seeds"]) == (25.0, 0.0)  # of an error in per cent
    assert devices.losses(first, second) == [{"method": "dino", "cells": 1, "first": 0.0, "last": 0.1}]
