"""The methods, in one explicit list. A new one is a file (or folder) beside these and a line in METHODS. Torch-free."""

from __future__ import annotations

from typing import Any

from lowdata_cpt.methods.base import MethodConfig
from lowdata_cpt.methods.diet_cp.config import DietCP
from lowdata_cpt.methods.dino.config import DINO
from lowdata_cpt.methods.facts import Facts
from lowdata_cpt.methods.glare.config import GLARE
from lowdata_cpt.methods.mae.config import MAE
from lowdata_cpt.methods.tec.config import TEC
from lowdata_cpt.methods.untrained import Base, BaseDomainNorm, Random
from lowdata_cpt.methods.v_pretraining.config import VPretraining

# In the order of figures and tables: untrained references, controls, methods.
METHODS: tuple[type[MethodConfig], ...] = (
    Random,
    Base,
    BaseDomainNorm,
    DINO,
    MAE,
    DietCP,
    GLARE,
    TEC,
    VPretraining,
)


def name_of(method: type[MethodConfig]) -> str:
    """Return the name under which a study's file knows a method."""
    return str(method.model_fields["method"].default)


def by_name() -> dict[str, type[MethodConfig]]:
    """Return the methods by name, in their order."""
    return {name_of(method): method for method in METHODS}


def facts(name: str) -> Facts:
    """Return what is known of a method.

    Raises:
        KeyError: there is none of that name; variants have their `method`'s.
    """
    return by_name()[name].facts


def untrained() -> tuple[str, ...]:
    """Return the names of the rows that train nothing."""
    return tuple(name for name, method in by_name().items() if method.learner_path is None)


def parse(settings: dict[str, Any]) -> MethodConfig:
    """Return the configuration that a method's plain values are of."""
    return by_name()[settings["method"]].model_validate(settings)
