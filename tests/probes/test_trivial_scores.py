"""The scores of predictors that never look at an image, through the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lowdata_cpt.cli import main
from lowdata_cpt.dev.fixtures import MAKERS
from lowdata_cpt.jobs import inputs
from lowdata_cpt.study import job_params
from lowdata_cpt.study.load import validate


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
