"""The steps of a cell one after the other in this process, for who does not come through Snakemake."""

from __future__ import annotations

from typing import Any

from lowdata_cpt.backbones.weights import FACTS
from lowdata_cpt.jobs import evaluate, inputs, pretrain
from lowdata_cpt.study import job_params
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.grid import Cell, probes_of
from lowdata_cpt.study.paths import Paths


def run_inputs(study: Study, cell: Cell, paths: Paths) -> None:
    """Decode the domain, fetch the backbone and draw the subset of a cell, where they are not there yet."""
    steps: list[tuple[Any, Any, Any]] = [
        (inputs.data, job_params.data_params(study, cell.domain), [paths.manifest(cell.domain)]),
        (pretrain.backbone, job_params.backbone_params(study, cell.backbone), [paths.backbone(cell.backbone)]),
    ]
    if cell.n:
        subset = paths.subset(cell.domain, cell.n, cell.seed)
        params = job_params.subset_params(study, cell.n, cell.seed)
        steps.append((inputs.subset, params, [paths.manifest(cell.domain), subset]))
    for run, params, places in steps:
        # Of a model folder, the file that is written last.
        if not (places[-1] / FACTS if run is pretrain.backbone else places[-1]).exists():
            run(params, *places)


def run_cell(study: Study, cell: Cell, paths: Paths, *, device: str = "auto", scored: bool = True) -> None:
    """Run a cell from its inputs to its scores; with `scored` false, or without labels, to its models."""
    run_inputs(study, cell, paths)
    trained = cell.trained
    pretrain.pretrain(job_params.pretrain_params(study, trained), trained, paths, device=device)
    if scored and probes_of(study, cell.domain):
        evaluate.evaluate(job_params.evaluate_params(study, cell), cell, paths, device=device)
