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
from lowdata_cpt.core.paths import REPOSITORY, expanded
from lowdata_cpt.core.strict import merge
from lowdata_cpt.core.yaml_file import read_yaml
from lowdata_cpt.study.checks import inconsistencies
from lowdata_cpt.study.config import Study

M = TypeVar("M", bound=BaseModel)
ENTRIES = ("backbones", "domains", "methods")
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
    if "\0" in name or not name:
        raise UserError(
            f"extends: {name[:60]!r} is no file's name; expected one beside the study's file, like base.yaml"
        )
    path = (folder / expanded(name)).resolve()
    if path in above:
        raise UserError(f"extends: {' -> '.join(str(p) for p in (*above, path))} is a circle")
    below = extended(read(path), path.parent, (*above, path))
    for kind in ENTRIES:
        # Held here for both, as a value of the one that is above takes the place of a wrong one below.
        for where, of in ((str(path), below), ("config", raw)):
            if of.get(kind) is not None and not isinstance(of[kind], dict):
                raise UserError(f"{where}: {kind} is {_SHORT.repr(of[kind])}; expected a mapping of names to settings")
    merged = merge(below, {key: value for key, value in raw.items() if key != "extends"})
    for kind in ENTRIES:
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
        said: dict[tuple[str, ...], str] = {}
        for item in _distinct(error.errors(include_url=False)):
            # A value that may be of several kinds is an error for each of them: one line.
            place, line = _plain(item["loc"]), _describe(item, model)
            said[place] = f"{said[place]}, or{line.partition(':')[2]}" if place in said else line
        raise several(where, list(said.values())) from None


def _plain(location: tuple[Any, ...]) -> tuple[str, ...]:
    """Return the steps of a location that stand in the file; pydantic adds which kind of value it tried."""
    steps = map(str, location)
    return tuple(step for step in steps if step == "[key]" or not ("[" in step or step.startswith("constrained-")))


def _distinct(errors: list[Any]) -> list[Any]:
    """Return the errors without those that only follow.

    A list whose items are wrong counts as too short, too; a mapping whose values are wrong is no list, either.
    """
    wrong = [item["loc"][:-1] for item in errors]
    left = [item for item in errors if item["type"] != "too_short" or item["loc"] not in wrong]
    places = [_plain(item["loc"]) for item in left]
    inner = [any(len(place) < len(other) and other[: len(place)] == place for other in places) for place in places]
    tried = [len(place) < len(item["loc"]) for place, item in zip(places, left, strict=True)]
    return [item for item, *follows in zip(left, inner, tried, strict=True) if not all(follows)]


def _describe(item: Any, model: type[BaseModel]) -> str:
    """Turn one pydantic error into `key: given … ; allowed …`."""
    location = [part if len(part) <= 60 else f"{part[:60]}…" for part in _plain(item["loc"])]
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
