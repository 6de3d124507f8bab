"""What is collected is what was scored, cell by cell."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from lowdata_cpt.analysis.summary import selection_table
from lowdata_cpt.core.io import write_json
from lowdata_cpt.jobs import collect
from lowdata_cpt.study.load import validate


def test_base_has_one_model_but_a_score_of_each_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = validate(
        {
            "study": "s",
            "seeds": [0, 1],
            "backbones": {"b": {"model": "test_vit"}},
            "domains": {"camvid": {"sizes": [4]}},
            "methods": {"base": {}, "mae": {}},
            "training": {"epochs": 1},
        }
    )
    write_json(Path("results/s/study.json"), study.model_dump(mode="json", exclude={"resources"}))
    root = Path("results/s/cells/b/camvid")
    for place, value in (("base/n0/s0", 0.2), ("base/n0/s1", 0.3), ("mae/n4/s0", 0.5), ("mae/n4/s1", 0.6)):
        metrics = {"val": {"miou": 0.9}, "test": {"miou": value}}
        selected = {"lr": 0.1 if value > 0.5 else 0.03, "val_miou": {"0.01": 0.7, "0.03": 0.8, "0.1": 0.9}}
        write_json(root / place / "segmentation.json", {"metrics": metrics, "selected": selected})
    for place, seen, steps in (("base/n0/s0", 0, 0), ("mae/n4/s0", 4, 600), ("mae/n4/s1", 4, 600)):  # no base s1
        cost = {"images_seen": seen, "train_seconds": 1.0, "steps": steps, "trainable_parameters": 0}
        write_json(root / place / "cost.json", cost)
        log = "".join(f"{step},{step},loss,{1 / 3 if step else float('nan')}\n" for step in range(steps))
        log += "".join(f"{step},{step},lr,0.1\n" for step in range(steps) if place != "mae/n4/s0")
        (root / place / "log.csv").write_text("step,images_seen,part,value\n" + log)
    Path("out").mkdir()
    collect.scores(Path("results/s/study.json"), Path("out"))
    table = pd.read_csv("out/scores.csv").query("split == 'test'")
    assert table["value"].tolist() == [0.2, 0.3, 0.5, 0.6]
    assert table["images_seen"].tolist() == [0, 0, 4, 4]
    steps = pd.read_csv("out/curves.csv", dtype=str, keep_default_na=False)
    assert list(steps.columns) == ["backbone", "domain", "method", "n", "seed", "step", "images_seen", "loss", "lr"]
    assert steps["step"].astype(int).tolist() == 2 * list(range(0, 600, 2))
    assert steps["loss"].tolist() == 2 * ["nan", *["0.333333"] * 299]
    assert steps["lr"].tolist() == [""] * 300 + ["0.1"] * 300
    assert len(pd.read_csv("out/cost.csv")) == 4
    assert pd.read_csv("out/selected.csv")["place"].tolist() == ["inner", "inner", "inner", "highest"]
    (row,) = selection_table(pd.read_csv("out/selected.csv")).to_dict("records")
    assert row == {"domain": "camvid", "task": "segmentation", "probes": 4, "lowest": 0, "inner": 3, "highest": 1}
