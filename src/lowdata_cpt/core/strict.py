"""The base of every configuration model: no unknown keys, values never change, a partial block keeps the rest."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` with the keys of `above` laid over it, mappings key by key."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


class Strict(BaseModel):
    """A frozen model that forbids unknown keys, so that a typing error cannot become a default.

    A field whose default is itself such a model keeps that default's values where a block gives only some of them:
    `glare: {optimiser: {lr: 1e-5}}` changes GLARE's rate and leaves its clipping and weight-decay schedule.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _keep_the_rest(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        whole = dict(given)
        for name, field in cls.model_fields.items():
            if isinstance(field.default, Strict) and isinstance(given.get(name), dict):
                whole[name] = merge(field.default.model_dump(), given[name])
        return whole
