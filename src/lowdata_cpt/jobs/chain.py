"""The steps of a cell one after the other in this process, for who does not come through Snakemake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from lowdata_cpt.backbones.weights import MODEL
from lowdata_cpt.core.io import is_intact, read_json
from lowdata_cpt.core.provenance import sidecar_path
from lowdata_cpt.jobs import evaluate, inputs, pretrain
from lowdata_cpt.study import job_params
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.grid import Cell, probes_of
from lowdata_cpt.study.paths import Paths


def make(run: Callable[..., None], params: job_params.Params, artifact: Path, *places: Path) -> None:
    """Run a step unless its artifact is there, made with these settings from the inputs that are there now."""
    record = read_json(sidecar_path(artifact)) if artifact.exists() and sidecar_path(artifact).exists() else {}
    given = [(Path(one["path"]), one["sha256"]) for one in record.get("inputs", ())]
    is_of_now = all(path.exists() and is_intact(path, sha256) for path, sha256 in given)
    if record.get("config") != json.loads(job_params.dump(params)) or not is_of_now:
        run(params, *places)


def run_data(study: Study, domain: str, paths: Paths) -> None:
    """Decode a domain, if it is not there as asked for."""
    manifest = paths.manifest(domain)
    make(inputs.data, job_params.data_params(study, domain), manifest, manifest)


def run_inputs(study: Study, cell: Cell, paths: Paths) -> None:
    """Decode the domain, fetch the backbone and draw the subset of a cell, where they are not there as asked for."""
    run_data(study, cell.domain, paths)
    folder = paths.backbone(cell.backbone)
    make(pretrain.backbone, job_params.backbone_params(study, cell.backbone), folder / MODEL, folder)
    if cell.n:
        subset = paths.subset(cell.domain, cell.n, cell.seed)
        params = job_params.subset_params(study, cell.n, cell.seed)
        make(inputs.subset, params, subset, paths.manifest(cell.domain), subset)


def run_cell(study: Study, cell: Cell, paths: Paths, *, device: str = "auto") -> None:
    """Run a cell from its inputs to its scores; without labels, to its models."""
    run_inputs(study, cell, paths)
    trained = cell.trained
    pretrain.pretrain(job_params.pretrain_params(study, trained), trained, paths, device=device)
    if probes_of(study, cell.domain):
        evaluate.evaluate(job_params.evaluate_params(study, cell), cell, paths, device=device)
