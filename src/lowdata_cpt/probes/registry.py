"""The probes, in one list. A new one: a file beside these with TASK, METRICS, Config and run, and a line in NAMES."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Annotated, Any

from pydantic import Field, create_model

from lowdata_cpt.core.strict import Strict
from lowdata_cpt.data.store import Task
from lowdata_cpt.probes.config import FeaturesConfig
from lowdata_cpt.probes.result import Metric

NAMES = (
    "linear",
    "segmentation",
    "depth",
)
PROBES: dict[str, ModuleType] = {name: import_module(f"lowdata_cpt.probes.{name}") for name in NAMES}
METRICS: dict[str, Metric] = {metric.name: metric for probe in PROBES.values() for metric in probe.METRICS}


def probes_of_tasks(tasks: tuple[Task, ...]) -> tuple[str, ...]:
    """Return the names of the probes that a domain's labels allow."""
    return tuple(name for name, module in PROBES.items() if module.TASK in tasks)


class ProbesBase(Strict):
    """What all evaluations share."""

    features: FeaturesConfig = FeaturesConfig()
    examples: int = Field(default=4, ge=0, le=1000, description="Test images on the qualitative sheet.")
    image_sizes: dict[str, Annotated[int, Field(ge=16, le=4096)]] = Field(
        default={}, description="Domain -> side in pixels of its probe images, where it is not the backbone's."
    )


_fields: dict[str, Any] = {name: (module.Config, module.Config()) for name, module in PROBES.items()}
Probes: type[ProbesBase] = create_model(
    "Probes", __base__=ProbesBase, __doc__="The evaluations and the feature pass they share.", **_fields
)
