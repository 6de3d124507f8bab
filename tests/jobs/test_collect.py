"""What is collected is what was scored, cell by cell and milestone by milestone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lowdata_cpt.analysis.summary import selection_table
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json, write_json
from lowdata_cpt.data.domains.camvid import CamVid
from lowdata_cpt.jobs import collect
from lowdata_cpt.study.grid import cells
from lowdata_cpt.study.load import validate
from lowdata_cpt.study.paths import Paths

COUNTS = np.arange(2 * 11 * 3, dtype=np.int32).reshape(2, 11, 3)


def probe(value: float, val: float) -> dict[str, object]:
    """Return what a segmentation probe found."""
    selected = {"lr": 0.1 if value > 0.5 else 0.03, "val_miou": {"0.01": 0.7, "0.03": 0.8, "0.1": 0.9}}
    return {"segmentation": {"metrics": {"val": {"miou": val}, "test": {"miou": value}}, "selected": selected}}


def test_a_row_per_metric_and_milestone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(collect.Store, "open", lambda manifest: None)  # CamVid's masks have no classes and no groups
    study = validate(
        {
            "study": "s",
            "seeds": [0, 1],
            "backbones": {"b": {"model": "test_vit"}},
            "domains": {"camvid": {"sizes": [4]}},
            "methods": {"base": {}, "mae": {}},
            "training": {"epochs": 2},
        }
    )
    paths = Paths("results/s")
    root = Path("results/s/cells/b/camvid")
    scored = {
        "base/n0/s0": {0: 0.2},
        "base/n0/s1": {0: 0.3},
        "mae/n4/s0": {2: 0.35, 4: 0.4, 8: 0.5},
        "mae/n4/s1": {2: 0.38, 4: 0.45, 8: 0.6},
    }
    for place, values in scored.items():
        found = {str(images): probe(value, 0.95 if images == 4 else 0.9) for images, value in values.items()}
        write_json(root / place / "evaluation.json", {"milestones": found})
        outcomes = {f"i{images}/segmentation/counts": COUNTS * (i + 1) for i, images in enumerate(values)}
        collect.write_arrays(root / place / "outcomes.npz", outcomes)
        if place == "base/n0/s1":
            continue  # one model for all seeds
        seconds = {str(images): float(images) for images in values}
        cost = {"images_seen": max(values), "train_seconds": 1.0, "steps": 600, "trainable_parameters": 0}
        write_json(root / place / "cost.json", cost | {"milestones": seconds})
        steps = range(600 if "mae" in place else 0)
        log = "".join(f"{step},{step},loss,{1 / 3 if step else float('nan')}\n" for step in steps)
        log += "".join(f"{step},{step},lr,0.1\n" for step in steps if place != "mae/n4/s0")
        (root / place / "log.csv").write_text("step,images_seen,part,value\n" + log)
    collect.collect(study, {}, paths)
    table = pd.read_csv("results/s/scores.csv").query("split == 'test'")
    assert table["value"].tolist() == [0.2, 0.3, 0.35, 0.4, 0.5, 0.38, 0.45, 0.6]
    assert table["images_seen"].tolist() == table["train_seconds"].tolist() == [0, 0, 2, 4, 8, 2, 4, 8]
    steps = pd.read_csv("results/s/curves.csv", dtype=str, keep_default_na=False)
    assert list(steps.columns) == ["backbone", "domain", "method", "n", "seed", "step", "images_seen", "loss", "lr"]
    assert steps["step"].astype(int).tolist() == 2 * list(range(0, 600, 2))
    assert steps["loss"].tolist() == 2 * ["nan", *["0.333333"] * 299]
    assert steps["lr"].tolist() == [""] * 300 + ["0.1"] * 300
    assert len(pd.read_csv("results/s/cost.csv")) == 4
    # The choice at the end of each cell, not at its milestones.
    assert pd.read_csv("results/s/selected.csv")["place"].tolist() == ["inner", "inner", "inner", "highest"]
    (row,) = selection_table(pd.read_csv("results/s/selected.csv")).to_dict("records")
    assert row == {"domain": "camvid", "task": "segmentation", "probes": 4, "lowest": 0, "inner": 3, "highest": 1}
    with np.load("results/s/outcomes/b-camvid.npz", allow_pickle=False) as found:
        assert sorted(found.files) == [
            f"{method}/{seed}/i{images}/segmentation/counts"
            for method, milestones in (("base/n0", (0,)), ("mae/n4", (4, 8)))
            for seed in ("s0", "s1")
            for images in milestones  # where validation would stop, and the end; not the milestone before
        ]
        np.testing.assert_array_equal(found["mae/n4/s1/i8/segmentation/counts"], 3 * COUNTS)
    # A study that loses its labels has no scores, and nothing is held to those that it had.
    monkeypatch.setattr(CamVid, "labelled", ())
    collect.collect(study, {}, paths)
    left = {path.name for path in Path("results/s").iterdir()}
    assert not left & {"scores.csv", "scores.csv.prov.json", "selected.csv", "outcomes"}
    assert collect.read_study(Path("results/s/study.json")).study == "s"


@pytest.mark.parametrize(
    ("setting", "grid", "chosen", "place"),
    [
        ("c", ("0.5", "2", "10"), 10.0, "highest"),  # by number, not by letter
        ("c", ("0.5", "2", "10"), 2.0, "inner"),
        ("lr", ("0.1", "0.01"), 0.01, "lowest"),
        ("lr", ("0.1",), 0.1, "inner"),  # a grid of one has no ends
    ],
)
def test_where_in_its_grid_a_choice_lies(setting: str, grid: tuple[str, ...], chosen: float, place: str) -> None:
    found = collect._selection({setting: chosen, "val_accuracy": dict.fromkeys(grid, 0.5)})
    assert found == {"setting": setting, "chosen": chosen, "place": place}


def test_tables_are_compared_but_for_seconds(tmp_path: Path) -> None:
    table, other = tmp_path / "a.csv", tmp_path / "b.csv"
    table.write_text("method,value,train_seconds\nmae,1,5\nbase,2,6\ndino,3,7\n")
    other.write_text("method,value,train_seconds\nmae,1,9\nbase,2,9\ndino,3,9\n")
    assert collect.differences(table, other) is None
    other.write_text("method,value,train_seconds\nmae,1,5\nbase,2.5,6\ndino,4,7\n")
    assert collect.differences(table, other) == "2 rows differ, the first is row 3: base 2"
    other.write_text("method,value,train_seconds\nmae,1,5\n")
    assert str(collect.differences(table, other)).endswith("other columns or rows: (3, 2) and (1, 2)")


def test_what_is_no_table_is_not_compared(tmp_path: Path) -> None:
    table, other = tmp_path / "a.csv", tmp_path / "b.csv"
    table.write_text("a,b\n1,2\n")
    other.write_text("a\n1,2\n3,4,5\n")
    with pytest.raises(UserError, match=r"b\.csv: not a CSV table"):
        collect.differences(table, other)


def test_a_damaged_cell_leaves_what_was_collected_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = validate(
        {
            "study": "s",
            "backbones": {"b": {"model": "test_vit"}},
            "domains": {"camvid": {"sizes": [4]}},
            "methods": {"base": {}},
            "training": {"epochs": 2},
        }
    )
    paths = Paths("s")
    write_json(paths.of_study("study.json"), "of before")
    write_json(paths.cell(next(cells(study))) / "cost.json", {})
    (paths.cell(next(cells(study))) / "log.csv").write_text("step")
    with pytest.raises(UserError):
        collect.collect(study, {}, paths)
    assert read_json(paths.of_study("study.json")) == "of before"
    assert not paths.of_study("not_run.json").exists()
