"""The scores of predictors that never look at an image, through the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lowdata_cpt.cli import main
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.store import Store
from lowdata_cpt.dev.fixtures import MAKERS
from lowdata_cpt.jobs import inputs
from lowdata_cpt.probes.metrics import trivial_scores
from lowdata_cpt.study import job_params
from lowdata_cpt.study.load import validate
from tests.probes import synthetic


def test_trivial_scores_are_one_row_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOWDATA_DATA", "data")
    study = validate(
        {
            "study": "tiny",
            "backbones": {"tiny": {"model": "vit_tiny_patch16_224"}},
            "domains": {"nyuv2": {"resolution": 32}, "cifar10": {"resolution": 32}},
            "methods": {"base": {}},
            "training": {"epochs": 1},
        }
    )
    folder = Path("results/tiny")
    manifests = [folder / "data" / name / "manifest.json" for name in study.domains]
    for name, manifest in zip(study.domains, manifests, strict=True):
        MAKERS[name](Path("data", name))
        inputs.data(job_params.data_params(study, name), manifest)
    assert main(["trivial-baselines", *map(str, manifests), "--out", str(folder / "floors.csv")]) == 0
    found = pd.read_csv(folder / "floors.csv").set_index(["domain", "task", "metric"])["value"]
    assert {domain for domain, *_ in found.index} == {"nyuv2", "cifar10"}
    assert {task for _, task, _ in found.index} == {"linear", "segmentation", "depth"}
    assert np.isfinite(found).all()
    assert found["cifar10", "linear", "accuracy"] == pytest.approx(0.1)  # ten classes, one test image each


MASK = np.array([[[1, 1, 1, 0], [1, 1, 255, 0]]], np.uint8)
BEYOND = np.array([[[0, 0, 0, 4], [0, 0, 0, 4]]], np.float32)
"""Depths outside of the crop, in which those of test images count."""


def dense_store(root: Path, changed: dict[tuple[str, str], np.ndarray]) -> Store:
    """A store of one image a split, with `changed` arrays by split and kind; 255 is ignored."""
    usual = {"segmentation": MASK, "depth": np.full((1, 2, 4), 2.0, np.float32)}
    arrays = {
        split: {kind: changed.get((split, kind), array) for kind, array in usual.items()}
        for split in ("train", "val", "test")
    }
    named = {"sets": synthetic.splits(), "classes": ["a", "b"], "ignore_index": 255}
    measured = {"sets": synthetic.splits(), "depth_range": [1.0, 10.0], "eval_crop": [0.0, 1.0, 0.0, 0.5]}
    return synthetic.write_store(root, arrays, {"segmentation": named, "depth": measured})


def test_the_mean_depth_is_of_whole_training_images(tmp_path: Path) -> None:
    found = trivial_scores(dense_store(tmp_path, {("train", "depth"): BEYOND}))
    assert found["depth"]["rmse"] == pytest.approx(2.0)  # 4 m, where the test image has 2
    assert found["segmentation"] == {"miou": pytest.approx(5 / 14), "pixel_accuracy": pytest.approx(5 / 7)}


@pytest.mark.parametrize(
    ("split", "kind", "array"),
    [
        ("train", "segmentation", np.full_like(MASK, 255)),
        ("test", "segmentation", np.full_like(MASK, 255)),
        ("train", "depth", np.full_like(BEYOND, 0.5)),
        ("test", "depth", BEYOND),
    ],
)
def test_labels_of_which_none_counts_are_named(split: str, kind: str, array: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{tmp_path}: no pixel of the {split} images has a {kind} label that counts$"):
        trivial_scores(dense_store(tmp_path, {(split, kind): array}))
