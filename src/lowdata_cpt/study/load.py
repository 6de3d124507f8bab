"""Reading a configuration: all errors at once, each with its key, what was given and what is allowed."""

from __future__ import annotations

import difflib
import types
import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.study.config import Study


def load(path: str | Path) -> Study:
    """Read and validate a study's YAML file.

    Raises:
        UserError: the file is missing, is not YAML, or has errors (all of them are listed).
    """
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such configuration file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    return validate(raw, str(path))


def validate(raw: Any, where: str = "config") -> Study:
    """Validate a configuration that was read already (by Snakemake, with its command line's overrides).

    Raises:
        UserError: one message with a line for every error.
    """
    if not isinstance(raw, dict):
        raise UserError(f"{where}: expected a mapping of keys at the top level, got {type(raw).__name__}")
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        lines = [_describe(item) for item in error.errors(include_url=False)]
        raise UserError(f"{where}: {len(lines)} error(s)\n" + "\n".join(f"  {line}" for line in lines)) from None


def _describe(item: Any) -> str:
    """Turn one pydantic error into `key: given … ; allowed …`."""
    location = [str(part) for part in item["loc"]]
    path = ".".join(location) or "(top level)"
    if item["type"] == "extra_forbidden":
        allowed = _keys_at(Study, item["loc"][:-1])
        near = difflib.get_close_matches(location[-1], allowed, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{path}: unknown key; {hint}allowed: {', '.join(allowed)}"
    if item["type"] == "missing":
        return f"{path}: required key is missing"
    message = item["msg"].removeprefix("Value error, ")
    given = item.get("input")
    shown = "" if isinstance(given, dict) else f" (got {given!r})"
    return f"{path}: {message}{shown}"


def _keys_at(model: Any, location: tuple[Any, ...]) -> list[str]:
    """Return the keys allowed at a location, walking through dicts and (tagged) unions."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        if not location:
            return sorted(model.model_fields)
        found = model.model_fields.get(str(location[0]))
        return _keys_at(found.annotation, location[1:]) if found else []
    origin, arguments = typing.get_origin(model), typing.get_args(model)
    if origin is typing.Annotated:
        return _keys_at(arguments[0], location)
    if origin is tuple:
        return _keys_at(arguments[0], location[1:])
    if origin is dict:
        return _keys_at(arguments[1], location[1:])
    if origin in (typing.Union, types.UnionType):
        for member in arguments:
            tags = [f.default for n, f in getattr(member, "model_fields", {}).items() if n in ("method", "kind")]
            if location and tags == [location[0]]:
                return _keys_at(member, location[1:])
        nested = [m for m in arguments if typing.get_origin(m) is tuple]
        if nested:
            return _keys_at(nested[0], location)
        models = [m for m in arguments if isinstance(m, type) and issubclass(m, BaseModel)]
        return _keys_at(models[0], location) if len(models) == 1 else []
    return []
