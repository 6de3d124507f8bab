"""Reading a configuration: all errors at once, each with its key, what was given and what is allowed."""

from __future__ import annotations

import difflib
import reprlib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lowdata_cpt.core.errors import UserError, several
from lowdata_cpt.core.paths import REPOSITORY
from lowdata_cpt.core.strict import merge
from lowdata_cpt.core.yaml_file import read_yaml
from lowdata_cpt.study.checks import inconsistencies
from lowdata_cpt.study.config import Study

M = TypeVar("M", bound=BaseModel)
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlong = 40


def load(path: str | Path) -> Study:
    """Read and validate a study's YAML file.

    Raises:
        UserError: the file is missing, is not YAML, or has errors (all of them are listed).
    """
    path = Path(path)
    return validate(read(path), str(path), path.parent)


def read(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        UserError: it cannot be read, is not YAML, or is no mapping.
    """
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a mapping of keys at the top level, got {type(raw).__name__}")
    return raw


def extended(raw: dict[str, Any], folder: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return a configuration laid over the file that its `extends` names, key by key; `null` removes an entry.

    Raises:
        UserError: the file cannot be read, or files extend each other in a circle.
    """
    name = raw.get("extends")
    if name is None:
        return raw
    if not isinstance(name, str):
        raise UserError(f"extends: {name!r} is no file's name; expected one beside the study's file, like base.yaml")
    path = (folder / name).resolve()
    if path in above:
        raise UserError(f"extends: {' -> '.join(str(p) for p in (*above, path))} is a circle")
    below = extended(read(path), path.parent, (*above, path))
    merged = merge(below, {key: value for key, value in raw.items() if key != "extends"})
    for kind in ("backbones", "domains", "methods"):
        if isinstance(merged.get(kind), dict):
            # A plain `method:` is an entry with nothing set, unless there was one below: then it is taken out.
            gone = {k for k, v in merged[kind].items() if v is None and (below.get(kind) or {}).get(k) is not None}
            merged[kind] = {k: v for k, v in merged[kind].items() if k not in gone}
    return merged


def validate(raw: Any, where: str = "config", folder: Path = REPOSITORY / "config") -> Study:
    """Validate a configuration that was read already (by Snakemake, with its command line's overrides).

    Args:
        raw: plain values.
        where: how messages call it.
        folder: where a file that it extends lies.

    Raises:
        UserError: one message with a line for every error, or it is a study of another kind.
    """
    if not isinstance(raw, dict):
        raise UserError(f"{where}: expected a mapping of keys at the top level, got {type(raw).__name__}")
    if "kind" in raw:
        raise UserError(
            f"{where}: a study of kind {raw['kind']!r}, expected one of images (without `kind`); "
            "`lowdata-cpt language --help` lists what serves `kind: language`"
        )
    study = parsed(Study, extended(raw, folder), where)
    if found := inconsistencies(study):
        raise several(where, found)
    return study


def parsed(model: type[M], raw: Any, where: str) -> M:
    """Return plain values as the configuration model that they are of.

    Raises:
        UserError: one message with a line for every error.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = [_describe(item, model) for item in _distinct(error.errors(include_url=False))]
        raise several(where, lines) from None


def _distinct(errors: list[Any]) -> list[Any]:
    """Return the errors without those that only follow: a list whose items are wrong counts as too short, too."""
    wrong = [item["loc"][:-1] for item in errors]
    return [item for item in errors if item["type"] != "too_short" or item["loc"] not in wrong]


def _describe(item: Any, model: type[BaseModel]) -> str:
    """Turn one pydantic error into `key: given … ; allowed …`."""
    location = [part if len(part := str(step)) <= 60 else f"{part[:60]}…" for step in item["loc"]]
    # In a method or domain pydantic names its kind once more.
    tagged = location[0] in ("methods", "domains") and len(location) > 2 if location else False
    path = ".".join(location[:2] + location[3:] if tagged else location) or "(top level)"
    if item["type"] == "extra_forbidden":
        allowed = _keys_at(model, item["loc"][:-1])
        near = difflib.get_close_matches(location[-1], allowed, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{path}: unknown key; {hint}allowed: {', '.join(allowed)}"
    if item["type"] == "missing":
        return f"{path}: required key is missing"
    message = item["msg"].removeprefix("Value error, ")
    given = item.get("input")
    shown = "" if isinstance(given, dict) else f" (got {_SHORT.repr(given)})"
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
