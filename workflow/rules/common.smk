"""Validation, the grid, and where things lie. What a command gets is decided in lowdata_cpt.study.job_params."""

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from lowdata_cpt.study import grid
from lowdata_cpt.study import job_params as hand
from lowdata_cpt.study.load import validate
from lowdata_cpt.core.errors import UserError

# Rules call the package of the interpreter that runs Snakemake, activated or not.
shell.prefix(f'PATH="{Path(sys.executable).parent}:$PATH"; ')

try:
    STUDY, NOT_RUN = grid.split_absent(validate(config, "configuration"))
    CELLS = list(grid.cells(STUDY))
    # Asked here, for all: a folder of images says only by looking at it which labels it has.
    TASKS = {domain: grid.probes_of(STUDY, domain) for domain in STUDY.domains}
    if not any(TASKS.values()) and not STUDY.keep_models:
        raise UserError(
            "keep_models is false, and no domain has labels to score: nothing would be left; expected true"
        )
except UserError as error:
    raise WorkflowError(f"error: {error}") from None
for domain, reason in NOT_RUN.items():
    print(f"not run: domain {domain}: {reason}", file=sys.stderr)

RESULTS = f"results/{STUDY.study}"
CELL = f"{RESULTS}/cells/{{backbone}}/{{domain}}/{{method}}/n{{n}}/s{{seed}}"
MANIFESTS = [f"{RESULTS}/data/{domain}/manifest.json" for domain in STUDY.domains]
ILLUSTRATED = {(c.backbone, c.domain, c.method): c for c in grid.illustrated(STUDY)}
MODELS = [f"{cell.model.folder(STUDY.study)}/cost.json" for cell in CELLS]
RESOURCES = STUDY.resources


wildcard_constraints:
    backbone="|".join(STUDY.backbones),
    domain="|".join(STUDY.domains),
    method="|".join(STUDY.methods),
    probe="|".join(grid.PROBES),
    n=r"\d+",
    seed=r"\d+",


def subset_of(wildcards):
    """Return the subset a cell trains on; untrained cells (n = 0) have none."""
    return (
        f"{RESULTS}/subsets/{wildcards.domain}/s{wildcards.seed}/n{wildcards.n}.csv"
        if int(wildcards.n)
        else []
    )


def features_of(wildcards):
    """Return the features a probe reads; those of `base` are the same for every seed."""
    cell = grid.Cell(
        wildcards.backbone,
        wildcards.domain,
        wildcards.method,
        int(wildcards.n),
        int(wildcards.seed),
    )
    return f"{cell.model.folder(STUDY.study)}/features.safetensors"


def probe_results(cells):
    """Return the score files of cells, one for each probe that their domain's labels allow."""
    return [f"{c.folder(STUDY.study)}/{p}.json" for c in cells for p in TASKS[c.domain]]


def dense_probe(name):
    """Return the name of a dense probe as a wildcard that matches only it."""
    return f"{CELL}/{{probe,{name}}}"
