"""Shape and floating-point operations of a ViT, from its name alone: read from timm's sources (no torch, no import).

Operations are multiply and add, counted twice per multiply-accumulate. Heads, augmentation and optimiser are left
out: for ViTs they are a few per cent.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

from lowdata_cpt.core.errors import UserError

TRAINED = 3.0  # forward, backward to the activations, backward to the weights
FROZEN = 2.0  # forward and backward to the activations: gradients pass through, weights take none
PLAIN = ("vision_transformer", "eva", "deit")
"""timm's modules whose plain ViTs are supported; their classes are VisionTransformer and Eva."""


class Geometry(NamedTuple):
    """Shape of a ViT: token width, blocks, patch side in pixels, tokens that are no patches."""

    width: int
    depth: int
    patch: int
    prefix: int


@functools.cache
def _sources() -> dict[str, str]:
    """Return the text of timm's model modules by name; importing timm takes seconds, and torch."""
    spec = importlib.util.find_spec("timm")
    assert spec is not None, "timm is a requirement"
    assert spec.submodule_search_locations, "timm is a package"
    folder = Path(spec.submodule_search_locations[0], "models")
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))}


@functools.cache
def _entry_points() -> dict[str, tuple[str, str]]:
    """Return the name of every timm model -> the module that registers it, and its function's text."""
    pattern = re.compile(r"^@register_model\s+(def (\w+)\(.*?)(?=^[^\s)]|\Z)", re.MULTILINE | re.DOTALL)
    return {m[2]: (module, m[1]) for module, text in _sources().items() for m in pattern.finditer(text)}


def has_weights(model: str) -> bool:
    """Say whether timm lists released weights of that name, or any of a name without a tag."""
    name, dot, _ = model.partition(".")
    wanted = f"'{model}'" if dot else f"'{name}."
    module = _entry_points().get(name, ("", ""))[0]
    return wanted in _sources().get(module, "")


@functools.cache
def geometry(model: str) -> Geometry:
    """Read a ViT's shape from the function that makes it in timm.

    Raises:
        UserError: timm has no such model, or it is none of its plain ViTs.
    """
    name, dot, _ = model.partition(".")
    if name not in _entry_points():
        near = difflib.get_close_matches(name, [n for n, (m, _) in _entry_points().items() if m in PLAIN], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"timm has no model {name!r}{hint}; expected one of timm's plain ViTs")
    if dot and not has_weights(model):
        tags = re.findall(rf"'{re.escape(name)}\.([\w.]+)'", _sources()[_entry_points()[name][0]])
        known = f"has {', '.join(dict.fromkeys(tags))}" if tags else "has none"
        raise UserError(f"timm has no weights {model!r}; {name} {known}")
    module, text = _entry_points()[name]
    function = ast.parse(text).body[0]
    assert isinstance(function, ast.FunctionDef), "the pattern finds functions"
    kind = ast.unparse(function.returns).strip("'") if function.returns else f"model of timm's module {module}"
    if module not in PLAIN or not kind.startswith(("VisionTransformer", "Eva")):
        raise UserError(f"{name} is a {kind} (timm's {module}); expected one of timm's plain ViTs")
    given = {k.arg: k.value for node in ast.walk(function) if isinstance(node, ast.Call) for k in node.keywords}
    blocks = given.get("block_fn")
    if isinstance(blocks, ast.Name) and "Parallel" in blocks.id:
        raise UserError(f"{name} has parallel blocks ({blocks.id}); expected one of timm's plain ViTs")

    def value(key: str, default: int) -> int:
        found = given.get(key)
        return int(found.value) if isinstance(found, ast.Constant) and isinstance(found.value, int) else default

    prefix = value("class_token", 1) + value("reg_tokens", 0) + value("num_reg_tokens", 0) + ("Distilled" in kind)
    return Geometry(value("embed_dim", 768), value("depth", 12), value("patch_size", 16), prefix)


def parameters(shape: Geometry) -> float:
    """Return the number of parameters, position embedding left out."""
    return shape.depth * (12 * shape.width**2 + 13 * shape.width) + 3 * shape.patch**2 * shape.width


def forward_flops(shape: Geometry, tokens: float, depth: float | None = None, width: int | None = None) -> float:
    """Return operations of a forward pass of `depth` blocks over `tokens` tokens."""
    d = width or shape.width
    return (shape.depth if depth is None else depth) * (24.0 * tokens * d**2 + 4.0 * tokens**2 * d)


def features_flops(shape: Geometry, size: int) -> float:
    """Return operations of one image's forward pass."""
    return forward_flops(shape, shape.prefix + (size / shape.patch) ** 2)
