"""Three folders as users have them, each by a few lines of YAML: decoded, trained on their feedback, scored."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import yaml

from lowdata_cpt.dev.scale_down import SMALLER
from lowdata_cpt.jobs.chain import run_cell
from lowdata_cpt.methods.v_pretraining.config import VPretraining
from lowdata_cpt.study.grid import cells
from lowdata_cpt.study.load import load
from lowdata_cpt.study.paths import Paths
from tests.data.own import cracks, fields, rgbd, yard
from tests.workflow.tiny import ROOT, STUDY, run, tiny_study

MINE = {
    "cracks": """
extends: tiny.yaml
study: mine
domains:
  imagefolder:
    root: cracks
    sizes: [4]
    resolution: 32
    masks: {classes: [road, crack]}
    group: {separator: _}
""",
    "fields": """
extends: tiny.yaml
study: mine
domains:
  imagefolder:
    root: fields
    sizes: [4]
    resolution: 32
    masks:
      classes: {soil: [0, 0, 0], crop: [0, 255, 0], weed: [255, 0, 0]}
      ignore: [[255, 255, 255]]
""",
    "rgbd": """
extends: tiny.yaml
study: mine
domains:
  imagefolder:
    root: rgbd
    sizes: [4]
    resolution: 32
    labels: labels.csv
    depth: {scale: 0.001, range: [0.3, 8.0]}
    group: {column: video}
""",
}
MAKERS: dict[str, Callable[[Path], Path]] = {"cracks": cracks, "fields": fields, "rgbd": rgbd}
PROBES = {"cracks": {"segmentation"}, "fields": {"segmentation"}, "rgbd": {"depth", "linear"}}
FEEDBACK = {"cracks": "segmentation", "fields": "segmentation", "rgbd": "depth"}
FOUND = {
    "cracks": "| 255 | crack | 12 |",
    "fields": "| #ff0000 | weed | 11 |",
    "rgbd": "12 depth maps: 0.948 to 3.55 m",
}


@pytest.mark.parametrize("name", MINE)
def test_a_folder_and_a_few_lines_are_scored(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOWDATA_DATA", str(tmp_path))
    MAKERS[name](tmp_path / name)
    dense = {**STUDY["probes"]["segmentation"], "train_stride": 8}
    below = {key: STUDY[key] for key in ("seeds", "backbones", "training")} | {
        "methods": {"base": {}, "v_pretraining": {k: v for k, v in SMALLER.items() if k in VPretraining.model_fields}},
        "probes": {"examples": 1, "segmentation": dense, "depth": dense, "linear": {"c_grid": [1.0]}},
    }
    Path("tiny.yaml").write_text(yaml.safe_dump(below))
    assert len(MINE[name].strip().splitlines()) <= 12
    Path("mine.yaml").write_text(MINE[name])
    study, paths = load("mine.yaml"), Paths("results/mine")
    assert [cell.method for cell in cells(study)] == ["base", "v_pretraining"]
    for cell in cells(study):
        run_cell(study, cell, paths, device="cpu")
        found = json.loads((paths.cell(cell) / "evaluation.json").read_text())["milestones"][str(cell.n)]
        assert set(found) == PROBES[name]
        scores = [value for probe in found.values() for value in probe["metrics"]["test"].values()]
        assert np.isfinite(scores).all()
    log = pd.read_csv(paths.cell(cell) / "log.csv").set_index("part")["value"]
    for part in ("value", "value_cosine", f"head_{FEEDBACK[name]}", f"meta_{FEEDBACK[name]}"):
        assert log[part] != 0
    assert FOUND[name] in paths.manifest("imagefolder").with_name("card.md").read_text()


def section() -> tuple[list[list[str]], str]:
    """Return the commands and the YAML of README's section on own images."""
    text = (ROOT / "README.md").read_text().split("## Your own images")[1].split("\n## ")[0]
    assert len(text.splitlines()) <= 40, "one screen"
    commands, written = re.findall(r"```(?:yaml)?\n(.*?)```", text, re.DOTALL)
    return [shlex.split(line, comments=True) for line in commands.splitlines()], written


@pytest.mark.slow
def test_the_section_of_the_readme_runs(tmp_path: Path) -> None:
    folder = tiny_study(tmp_path / "p")
    mine = str(yard(tmp_path / "yard"))
    (init, validate, go), shown = section()
    said = run(folder, *(mine if word == "/path/to/yard" else word for word in init)).stdout
    assert "wrote config/yard.yaml" in said
    run(folder, *validate)
    written = yaml.safe_load((folder / "config/yard.yaml").read_text())
    asked = yaml.safe_load(shown)
    theirs = asked["domains"]["imagefolder"]
    assert set(theirs) == {*written["domains"]["imagefolder"], "group"}
    assert {k: v for k, v in written.items() if k != "domains"} | {"extends": "base.yaml"} == {
        k: v for k, v in asked.items() if k != "domains"
    }
    # As shown, with a backbone and a length that a test can wait for.
    methods = yaml.safe_load((ROOT / "config/base.yaml").read_text())["methods"]
    tiny = {key: STUDY[key] for key in ("backbones", "training", "probes")} | {
        "methods": {name: {} for name in methods}
    }
    (folder / "config/tiny.yaml").write_text(yaml.safe_dump(tiny))
    theirs |= {"root": mine, "sizes": [4], "resolution": 32}
    asked |= {"extends": str(folder / "config/tiny.yaml")}
    (folder / "config/yard.yaml").write_text(yaml.safe_dump(asked))
    assert go[0] == "snakemake"
    run(folder, *go)
    assert (folder / "results/yard/report.html").exists()
    scores = pd.read_csv(folder / "results/yard/scores.csv")
    assert {"linear", "segmentation", "depth"} <= set(scores["task"])
    assert set(scores["method"]) == {"base", "base_domain_norm", "diet_cp"}
    export = folder / "results/yard/cells/tiny/imagefolder/diet_cp/n4/s0/export/i4"
    model = timm.create_model(f"local-dir:{export}", pretrained=True)
    assert model.pretrained_cfg["input_size"] == [3, 32, 32]
