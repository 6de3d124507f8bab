"""Floating-point operations of a method's training, from its settings and the backbone's name alone (no torch)."""

from __future__ import annotations

from lowdata_cpt.backbones.flops import Geometry, features_flops
from lowdata_cpt.methods.base import MethodConfig


def training_flops(method: MethodConfig, shape: Geometry, size: int, batch: int) -> float:
    """Return operations per image seen: as the `cost` module of the method says, else its `facts.passes`."""
    cost = method.module_beside("cost")
    if cost is None:
        return method.facts.passes * features_flops(shape, size)
    return float(cost.training_flops(method, shape, size, batch))
