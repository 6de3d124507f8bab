"""The worked example of docs/probes.md: one file and one line, taken from the page as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from lowdata_cpt.dev.generate import ROOT

SCRIPT = """
import os
from pathlib import Path
import lowdata_cpt.study.config
import sys
assert "torch" not in sys.modules, "planning imports torch"

import numpy as np
from lowdata_cpt.analysis.table import METRICS, read_scores
from lowdata_cpt.core.io import read_json
from lowdata_cpt.dev.fixtures import MAKERS
from lowdata_cpt.jobs.chain import run_cell
from lowdata_cpt.jobs.collect import collect
from lowdata_cpt.jobs.forecast import Assumptions, evaluation_seconds
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.grid import cells
from lowdata_cpt.study.job_params import evaluate_params
from lowdata_cpt.study.load import validate
from lowdata_cpt.study.paths import Paths

os.environ["LOWDATA_DATA"] = "data"
MAKERS["neu_steel"](Path("data/neu_steel"))
study = validate({
    "study": "mine",
    "seeds": [0],
    "backbones": {"tiny": {"model": "vit_tiny_patch16_224", "weights": "random", "image_size": 32}},
    "domains": {"neu_steel": {"resolution": 32, "sizes": [6]}},
    "methods": {"base": {}},
    "training": {"epochs": 1},
    "probes": {"centroid": {"centre": True}, "linear": {"c_grid": [1.0]}},
})
(cell,), paths = cells(study), Paths("results/mine")
assert evaluate_params(study, cell)["probes"]["centroid"] == {"centre": True}
assert "centroid" in Study.model_json_schema()["$defs"]["Probes"]["properties"]
assert METRICS["centroid_accuracy"].task == "centroid"
assert evaluation_seconds(study, cell, 100, Assumptions()) > 0
run_cell(study, cell, paths, device="cpu")
found = read_json(paths.cell(cell) / "evaluation.json")["milestones"]["0"]
assert set(found) == {"linear", "centroid"}
with np.load(paths.cell(cell) / "outcomes.npz") as outcomes:
    assert outcomes["i0/centroid/centroid"].shape == outcomes["i0/linear/knn"].shape
collect(study, {}, paths)
scores = read_scores("results/mine/scores.csv")
(row,) = scores[(scores["metric"] == "centroid_accuracy") & (scores["split"] == "test")].to_dict("records")
assert row["task"] == "centroid" and row["value"] == found["centroid"]["metrics"]["test"]["centroid_accuracy"]
print("ran")
"""


def test_the_page_is_enough(tmp_path: Path) -> None:
    page = (ROOT / "docs/probes.md").read_text(encoding="utf-8")
    file, line = re.findall(r"```(?:python|text)\n(.*?)```", page, flags=re.DOTALL)
    source = tmp_path / "src"
    shutil.copytree(ROOT / "src/lowdata_cpt", source / "lowdata_cpt", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "lowdata_cpt/probes/centroid.py").write_text(file, encoding="utf-8")
    listing = source / "lowdata_cpt/probes/registry.py"
    before = listing.read_text(encoding="utf-8")
    listing.write_text(before.replace("NAMES = (\n", "NAMES = (\n" + line), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(source)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ran"
