"""The base of every configuration model: no unknown keys, no senseless numbers, a partial block keeps the rest."""

from __future__ import annotations

import functools
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

LARGEST = 10**10
"""No number of a configuration is larger, whatever it counts; most fields say a narrower range."""


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` with the keys of `above` laid over it, mappings key by key."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


@functools.cache
def _types(annotation: Any) -> frozenset[type]:
    """Return the plain types that a field's annotation is made of."""
    parts = [part for part in typing.get_args(annotation) if typing.get_origin(annotation) is not typing.Literal]
    return frozenset().union(*map(_types, parts)) if parts else frozenset({annotation})


def _switches_as_text(value: Any) -> Any:
    """Write true and false out, in a value or a list or mapping of values: text is no number, whereas True is 1."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return [str(item).lower() if isinstance(item, bool) else item for item in value]
    if isinstance(value, dict):
        return {key: str(item).lower() if isinstance(item, bool) else item for key, item in value.items()}
    return value


def _leaves(value: Any) -> Iterator[Any]:
    """Yield a value, or the items of a list or mapping of values; what is nested deeper is another model's."""
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, (list, tuple)):
        yield from value
    else:
        yield value


class Strict(BaseModel):
    """A frozen model that forbids unknown keys, so that a typing error cannot become a default.

    Numbers are finite, at most `LARGEST`, and never `true` or `false`, which Python counts as 1 and 0.

    A field whose default is itself such a model keeps that default's values where a block gives only some of them:
    `glare: {optimiser: {lr: 1e-5}}` changes GLARE's rate and leaves its clipping and weight-decay schedule.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        protected_namespaces=(),
        allow_inf_nan=False,
        str_max_length=4096,
    )

    @field_validator("*")
    @classmethod
    def _not_too_large(cls, given: Any) -> Any:
        if any(isinstance(leaf, (int, float)) and abs(leaf) > LARGEST for leaf in _leaves(given)):
            raise ValueError(f"expected numbers up to {LARGEST:.0e}")
        return given

    @model_validator(mode="before")
    @classmethod
    def _prepare(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        whole = dict(given)
        for name, field in cls.model_fields.items():
            annotation: Any = field.annotation
            if isinstance(field.default, Strict) and isinstance(given.get(name), dict):
                whole[name] = merge(field.default.model_dump(), given[name])
            elif name in given and {int, float} & (types := _types(annotation)) and bool not in types:
                whole[name] = _switches_as_text(given[name])
        return whole
