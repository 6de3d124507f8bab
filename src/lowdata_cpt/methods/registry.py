"""The methods, in one explicit list. A new one is a file (or folder) beside these and a line in METHODS."""

from __future__ import annotations

from typing import Any

from lowdata_cpt.methods.base import MethodConfig
from lowdata_cpt.methods.diet_cp.config import DietCP
from lowdata_cpt.methods.dino.config import DINO
from lowdata_cpt.methods.glare.config import GLARE
from lowdata_cpt.methods.mae.config import MAE
from lowdata_cpt.methods.tec.config import TEC
from lowdata_cpt.methods.untrained import Base, BaseDomainNorm, Random
from lowdata_cpt.methods.v_pretraining.config import VPretraining

METHODS: tuple[type[MethodConfig], ...] = (Base, BaseDomainNorm, Random, DietCP, GLARE, TEC, VPretraining, DINO, MAE)
BY_NAME = {config.model_fields["method"].default: config for config in METHODS}


def parse(settings: dict[str, Any]) -> MethodConfig:
    """Return the configuration that a method's plain values are of."""
    return BY_NAME[settings["method"]].model_validate(settings)
