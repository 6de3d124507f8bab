"""Validation, the grid, and what rules hand to the commands: each gets only what its result depends on."""

import json
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from lowdata_cpt import cells as grid
from lowdata_cpt.codeversion import code_version
from lowdata_cpt.config.load import validate
from lowdata_cpt.errors import UserError

# Rules call the package of the interpreter that runs Snakemake, activated or not.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

try:
    STUDY = validate(config, "configuration")
except UserError as error:
    raise WorkflowError(str(error)) from None

RESULTS = f"results/{STUDY.study}"
CELL = f"{RESULTS}/cells/{{backbone}}/{{domain}}/{{method}}/n{{n}}/s{{seed}}"
CELLS = list(grid.cells(STUDY))
RESOURCES = STUDY.resources


wildcard_constraints:
    backbone="|".join(STUDY.backbones),
    domain="|".join(STUDY.domains),
    method="|".join(STUDY.methods),
    probe="|".join(grid.PROBES),
    n=r"\d+",
    seed=r"\d+",


def dump(value):
    """Return JSON with sorted keys: equal configurations are equal params, and nothing is re-run."""
    return json.dumps(value, sort_keys=True)


def as_json(model):
    """Return a configuration model as JSON."""
    return dump(model.model_dump(mode="json"))


def training_config(wildcards):
    """Return what one cell's weights depend on, the method's code version included."""
    method = STUDY.methods[wildcards.method]
    training = method.training or STUDY.training
    return dump(
        {
            "method": method.model_dump(mode="json"),
            "training": training.model_dump(mode="json") if method.learner_path else {"epochs": 1},
            "image_size": STUDY.backbones[wildcards.backbone].image_size,
            "code": type(method).code_version(),
        }
    )


def features_config(wildcards):
    """Return what a feature pass depends on."""
    return dump(
        {
            "features": STUDY.probes.features.model_dump(mode="json"),
            "image_size": STUDY.backbones[wildcards.backbone].image_size,
            "precision": STUDY.training.precision,
            "code": code_version("probes.features"),
        }
    )


def probe_config(wildcards):
    """Return what a probe depends on."""
    settings = getattr(STUDY.probes, wildcards.probe)
    code = code_version(f"probes.{wildcards.probe}")
    return dump({"probe": settings.model_dump(mode="json"), "examples": STUDY.probes.examples, "code": code})


def subset_of(wildcards):
    """Return the subset a cell trains on; untrained cells (n = 0) have none."""
    return f"{RESULTS}/subsets/{wildcards.domain}/s{wildcards.seed}/n{wildcards.n}.csv" if int(wildcards.n) else []


def features_of(wildcards):
    """Return the features a probe reads; those of `base` are the same for every seed."""
    cell = grid.Cell(wildcards.backbone, wildcards.domain, wildcards.method, int(wildcards.n), int(wildcards.seed))
    return f"{cell.model.folder(STUDY.study)}/features.safetensors"


def probe_results(cells, suffix="json"):
    """Return the score files of cells, one for each probe that their domain's labels allow."""
    return [f"{c.folder(STUDY.study)}/{p}.{suffix}" for c in cells for p in grid.probes_of(STUDY, c.domain)]
