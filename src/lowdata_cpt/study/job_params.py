"""What each job depends on, as JSON: settings and code versions, and no resource.

Equal configurations give equal text, so Snakemake re-runs a job if and only if something it depends on has changed.
What depends on the content of files is not here: those are the job's inputs.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from pydantic import BaseModel

from lowdata_cpt.core.code_versions import code_version
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.grid import Cell, probes_of

Params = dict[str, Any]


def dump(value: Any) -> str:
    """Return JSON with sorted keys; models as their plain values."""
    return json.dumps(value, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    assert isinstance(value, BaseModel), f"{type(value).__name__} is not a configuration"
    return value.model_dump(mode="json")


@functools.cache
def code_of(*modules: str) -> str:
    """Return the code version of modules; asked once for thousands of jobs."""
    return code_version(*modules)


def study_params(study: BaseModel) -> Params:
    """Return any study's resolved configuration; resources are left out, as no result depends on them."""
    return study.model_dump(mode="json", exclude={"resources"})


def data_params(study: Study, domain: str) -> Params:
    """Return what a domain's decoded content depends on, its raw files included: not on how many images are drawn."""
    settings = study.domains[domain]
    return {
        "domain": settings.model_dump(mode="json", exclude={"sizes"}),
        "raw": settings.raw_fingerprint(),
        "code": code_of(*settings.code_modules()),
    }


def backbone_params(study: Study, backbone: str) -> Params:
    """Return what a released backbone's model folder depends on."""
    return {"backbone": study.backbones[backbone].model_dump(mode="json"), "code": code_of("backbones.weights")}


def subset_params(study: Study, n: int | str, seed: int | str) -> Params:
    """Return what a draw depends on, beside the decoded domain; numbers may be wildcards' text."""
    return {"n": int(n), "seed": int(seed), "code": code_of("data.subsets")}


def pretrain_params(study: Study, cell: Cell) -> Params:
    """Return what a cell's weights depend on, beside the backbone, the domain and the drawn images."""
    method, backbone = study.methods[cell.method], study.backbones[cell.backbone]
    return {
        "method": method.model_dump(mode="json", exclude={"training"}),
        # What trains nothing does not depend on the length of the run.
        "training": study.training_of(cell.method).model_dump(mode="json") if method.learner_path else None,
        "model": backbone.model,
        "image_size": backbone.image_size,
        "seed": cell.seed,
        "code": code_of(*type(method).code_modules()),
    }


def evaluate_params(study: Study, cell: Cell) -> Params:
    """Return what a cell's scores depend on, beside its models, the domain and the drawn images."""
    tasks = probes_of(study, cell.domain)
    probes = study.probes.model_dump(mode="json")
    return {
        "probes": {name: probes[name] for name in ("features", "examples", *tasks)},
        "image_size": study.probes.image_sizes.get(cell.domain, study.backbones[cell.backbone].image_size),
        "model": study.backbones[cell.backbone].model,
        "precision": study.training.precision,
        "seed": cell.seed,
        # One version each: a version that `make golden` kept is of one golden cell, not of any set of them.
        "code": {name: code_of(f"probes.{name}") for name in ("evaluate", *tasks)},
    }


def diagnostics_params(study: Study, cell: Cell) -> Params:
    """Return what the diagnostics of a cell depend on."""
    code = code_of("jobs.diagnostics", f"methods.{study.methods[cell.method].method}.diagnostics")
    return pretrain_params(study, cell) | {"diagnostics": code}
