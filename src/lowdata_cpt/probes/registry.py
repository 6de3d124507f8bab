"""The probes, in one list. A new one is a file beside these, with `TASK`, `Config` and `run`, and a line in MODULES."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from pydantic import Field, create_model

from lowdata_cpt.core.strict import Strict
from lowdata_cpt.data.store import Task
from lowdata_cpt.probes import depth, linear, segmentation
from lowdata_cpt.probes.config import FeaturesConfig

MODULES: tuple[ModuleType, ...] = (linear, segmentation, depth)
PROBES: dict[str, ModuleType] = {module.__name__.rpartition(".")[2]: module for module in MODULES}


def probes_of_tasks(tasks: tuple[Task, ...]) -> tuple[str, ...]:
    """Return the names of the probes that a domain's labels allow."""
    return tuple(name for name, module in PROBES.items() if module.TASK in tasks)


class ProbesBase(Strict):
    """What all evaluations share."""

    features: FeaturesConfig = FeaturesConfig()
    examples: int = Field(default=4, ge=0, description="Test images on the qualitative sheet.")
    image_sizes: dict[str, int] = Field(
        default={}, description="Domain -> side in pixels of its probe images, where it is not the backbone's."
    )


_fields: dict[str, Any] = {name: (module.Config, module.Config()) for name, module in PROBES.items()}
Probes: type[ProbesBase] = create_model(
    "Probes", __base__=ProbesBase, __doc__="The evaluations and the feature pass they share.", **_fields
)
