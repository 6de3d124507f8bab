"""The version of the code that decides a result: it changes when the result can, and not before.

Snakemake sees a rule's command and params, not the modules behind them; this version is put into the params, so that
a change of one method's code re-runs that method's cells and nothing else. A version is the hash of the modules,
blind to comments and docstrings, unless `config/code_versions.json` records that another source gives the same
results: `make golden` compares the results of tiny golden cells before and after a change (`dev.golden`).
"""

from __future__ import annotations

import ast
import functools
import io
import tokenize
from pathlib import Path

from lowdata_cpt.core.io import identity, read_json
from lowdata_cpt.core.paths import PACKAGE, REPOSITORY

RECORDED = REPOSITORY / "config" / "code_versions.json"
# Modules that carry messages, refusals, files, logs and lists of names, but no arithmetic.
NEUTRAL = frozenset(
    {
        "core.code_versions",
        "core.errors",
        "core.io",
        "core.packages",
        "core.paths",
        "core.provenance",
        "core.strict",
        "data.registry",
        "methods.facts",
        "methods.registry",
        "probes.registry",
        "study.checks",
        "training.log",
    }
)


def _file(module: str) -> Path | None:
    """Return the source file of `lowdata_cpt.<module>`, None where it is no module (a name inside one)."""
    path = PACKAGE.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _code_only(text: str, tree: ast.Module) -> str:
    """Return the source without docstrings, comments and blank lines; the same under every Python version."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            end = first.end_lineno or first.lineno
            lines[first.lineno - 1 : end] = [""] * (end - first.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


@functools.cache
def _read(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return a module's code, and the modules of this package that it names in its imports."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lowdata_cpt."):
            parent = node.module.removeprefix("lowdata_cpt.")
            inside = {f"{parent}.{name.name}" for name in node.names if _file(f"{parent}.{name.name}")}
            imported |= inside or {parent}
        elif isinstance(node, ast.Import):
            imported |= {n.name.removeprefix("lowdata_cpt.") for n in node.names if n.name.startswith("lowdata_cpt.")}
    return _code_only(text, tree), tuple(sorted(imported))


def sources(*modules: str) -> dict[str, str]:
    """Return the code of `modules` (names below the package) and of all they import from it, by module.

    `NEUTRAL` modules count only where they are asked for by name.
    """
    seen: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        path = _file(module)
        if module in seen or (module in NEUTRAL and module not in modules) or path is None:
            continue
        seen[module], imported = _read(path)
        waiting.extend(imported)
    return seen


def source_version(*modules: str) -> str:
    """Return the hash of the code of `modules` and all they import: 12 hex digits."""
    return identity(sources(*modules))[:12]


@functools.cache
def _recorded() -> dict[str, str]:
    """Return source version -> version of what is recorded."""
    if not RECORDED.exists():
        return {}
    stored = read_json(RECORDED)
    versions = {name: version for kind in stored["versions"].values() for name, version in kind.items()}
    return {unit["source"]: versions[name] for name, unit in stored["units"].items()}


def code_version(*modules: str) -> str:
    """Return the version of `modules` and all they import: the recorded one of this source, or its own hash."""
    source = source_version(*modules)
    return _recorded().get(source, source)
