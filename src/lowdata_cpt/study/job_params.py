"""The JSON each rule hands to its command: exactly what the result depends on, code versions included.

Equal configurations give equal text, so Snakemake re-runs a job if and only if something it depends on has changed.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from pydantic import BaseModel

from lowdata_cpt.core.code_versions import code_version
from lowdata_cpt.methods.base import MethodConfig
from lowdata_cpt.study.config import Study


def dump(value: Any) -> str:
    """Return JSON with sorted keys; models as their plain values."""
    return json.dumps(value, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    assert isinstance(value, BaseModel), f"{type(value).__name__} is not a configuration"
    return value.model_dump(mode="json")


@functools.cache
def _code(module: str) -> str:
    """Return a module's code version; asked once for thousands of jobs."""
    return code_version(module)


@functools.cache
def _method_code(config: type[MethodConfig]) -> str:
    return config.code_version()


def study_params(study: Study) -> str:
    """Return the resolved configuration; resources are left out, as no result depends on them."""
    return dump(study.model_dump(mode="json", exclude={"resources"}))


def data_params(study: Study, domain: str) -> str:
    """Return what a domain's decoded content depends on, beside its files: not on how many images are drawn of it."""
    return dump(study.domains[domain].model_dump(mode="json", exclude={"sizes"}))


def training_params(study: Study, backbone: str, method: str) -> str:
    """Return what a cell's weights depend on, beside its input files and its seed."""
    config = study.methods[method]
    return dump(
        {
            "method": config,
            # What trains nothing does not depend on the length of the run.
            "training": (config.training or study.training) if config.learner_path else {"epochs": 1},
            "image_size": study.backbones[backbone].image_size,
            "code": _method_code(type(config)),
        }
    )


def illustration_params(study: Study, backbone: str, method: str) -> str:
    """Return what the pictures from inside a cell depend on, beside its input files and its seed."""
    pictures = _code(f"methods.{method}.diagnostics")
    return dump(json.loads(training_params(study, backbone, method)) | {"pictures": pictures})


def features_params(study: Study, backbone: str, domain: str) -> str:
    """Return what a feature pass depends on, beside the model and the data."""
    return dump(
        {
            "features": study.probes.features,
            "image_size": study.probes.image_sizes.get(domain, study.backbones[backbone].image_size),
            "precision": study.training.precision,
            "code": _code("probes.features"),
        }
    )


def probe_params(study: Study, probe: str) -> str:
    """Return what a probe depends on, beside its features, the labels and its seed."""
    code = _code(f"probes.{probe}")
    return dump({"probe": getattr(study.probes, probe), "examples": study.probes.examples, "code": code})


def analysis_params() -> str:
    """Return the code version of statistics, claims, figures, tables and report."""
    return _code("jobs.report")


def collect_params() -> str:
    """Return the code version of what gathers scores and examples."""
    return _code("jobs.collect")


def floors_params() -> str:
    """Return the code version of the predictors that never look at an image."""
    return _code("probes.metrics")
