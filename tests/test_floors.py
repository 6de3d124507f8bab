from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lowdata_cpt.cli import main
from lowdata_cpt.config.load import validate
from lowdata_cpt.data.fixtures import MAKERS
from lowdata_cpt.stages import inputs


def test_floors_are_one_row_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    for name, domain in study.domains.items():
        MAKERS[name](Path("data", name))
        inputs.data(domain.model_dump(mode="json"), folder / "data" / name / "manifest.json")
    (folder / "study.json").write_text(json.dumps(study.model_dump(mode="json", exclude={"resources"})))
    assert main(["floors", "--study", str(folder / "study.json"), "--out", str(folder / "floors.csv")]) == 0
    found = pd.read_csv(folder / "floors.csv").set_index(["domain", "task", "metric"])["value"]
    assert {domain for domain, *_ in found.index} == {"nyuv2", "cifar10"}
    assert {task for _, task, _ in found.index} == {"linear", "segmentation", "depth"}
    assert np.isfinite(found).all()
    assert found["cifar10", "linear", "accuracy"] == pytest.approx(0.1)  # ten classes, one test image each
