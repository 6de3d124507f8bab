"""The worked example of docs/adding-a-method.md: one file and one line, taken from the page as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from lowdata_cpt.dev.generate import ROOT

SCRIPT = """
import torch, numpy as np
from pathlib import Path
from lowdata_cpt.study.load import validate
from lowdata_cpt.training.loop import Run
from lowdata_cpt.training.config import Training
from tests.methods.harness import make_backbone, make_context

study = validate({
    "study": "mine",
    "backbones": {"tiny": {"model": "vit_tiny_patch16_224", "weights": "random", "image_size": 32}},
    "domains": {"tabletop": {"sizes": [6]}},
    "methods": {"base": {}, "simclr": {}, "simclr_hot": {"method": "simclr", "temperature": 0.5}},
    "training": {"epochs": 2, "batch_size": 4},
})
config = study.methods["simclr_hot"]
assert config.temperature == 0.5

def run(folder):
    vit = make_backbone("vit_tiny_patch16_224", 32)
    learner = config.learner()(vit, config, make_context(vit, 6, 4, 4))
    images = np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), dtype=np.uint8)
    where = {"device": torch.device("cpu"), "folder": Path(folder), "identity": "x"}
    run = Run(learner, images, config, study.training, seed=0, **where)
    result = run.train()
    assert result.steps == 4 and result.images_seen == 12
    return learner.export().backbone

first, second = run("a"), run("b")
assert all(torch.equal(first[k], second[k]) for k in first)

from lowdata_cpt.analysis import style
from lowdata_cpt.analysis.preconditions import PRECONDITIONS
from lowdata_cpt.backbones.flops import features_flops, geometry
from lowdata_cpt.dev.generate import deviations
from lowdata_cpt.methods.registry import facts
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.flops import training_flops
from lowdata_cpt.study.job_params import pretrain_params
from lowdata_cpt.study.grid import cells

assert facts("simclr").label == style.style_of("simclr").label == "SimCLR"
assert style.style_of("simclr").color == style.style_of("simclr_hot").color == "#56B4E9"
assert style.ordered(["simclr", "tec", "base"]) == ["base", "tec", "simclr"]
assert style.CONTROL_OF["simclr"] == "dino" and "simclr" in PRECONDITIONS
shape = geometry("vit_tiny_patch16_224")
assert training_flops(config, shape, 32, 4) == 6 * features_flops(shape, 32)
schema = Study.model_json_schema()
assert {"$ref": "#/$defs/SimCLR"} in schema["properties"]["methods"]["additionalProperties"]["anyOf"]
assert "temperature" in schema["$defs"]["SimCLR"]["properties"]
assert "| optimiser | LARS, batch 4096 |" in deviations()
trained = [cell for cell in cells(study) if cell.method == "simclr_hot"]
params = pretrain_params(study, trained[0])
assert params["method"]["temperature"] == 0.5 and params["code"]

import timm
timm.create_model("vit_tiny_patch16_224", num_classes=0).load_state_dict(first)
print("ran")
"""


def test_the_page_is_enough(tmp_path: Path) -> None:
    page = (ROOT / "docs/adding-a-method.md").read_text(encoding="utf-8")
    file, line = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    source = tmp_path / "src"
    shutil.copytree(ROOT / "src/lowdata_cpt", source / "lowdata_cpt", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests/methods", tmp_path / "tests/methods", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "lowdata_cpt/methods/simclr.py").write_text(file, encoding="utf-8")
    listing = source / "lowdata_cpt/methods/registry.py"
    listing.write_text(listing.read_text(encoding="utf-8") + line, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(source), str(tmp_path)])}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ran"
