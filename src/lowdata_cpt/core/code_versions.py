"""The code version of a result: a hash of the modules it is computed by, blind to comments, docstrings and the ledger.

Snakemake sees a rule's command and params, not the modules behind them; this hash is put into the params, so that a
change of one method's code re-runs that method's cells and nothing else.
"""

from __future__ import annotations

import ast
import functools
import io
import tokenize
from pathlib import Path

from lowdata_cpt.core.io import identity
from lowdata_cpt.core.paths import PACKAGE

# Modules that carry messages, files and logs, but no arithmetic.
NEUTRAL = frozenset(
    {
        "core.errors",
        "core.io",
        "core.packages",
        "core.paths",
        "core.provenance",
        "core.strict",
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
    """Return the source without docstrings, comments, blank lines and the tables of deviations, which are prose.

    The text is the same under every Python version.
    """
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            _blank(lines, first)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "deviations":
            _blank(lines, node)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _blank(lines: list[str], node: ast.stmt) -> None:
    end = node.end_lineno or node.lineno
    lines[node.lineno - 1 : end] = [""] * (end - node.lineno + 1)


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


def code_version(*modules: str) -> str:
    """Return the version of `modules` (names below the package) and all they import from it: 12 hex digits."""
    seen: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        path = _file(module)
        if module in seen or module in NEUTRAL or path is None:
            continue
        seen[module], imported = _read(path)
        waiting.extend(imported)
    return identity(seen)[:12]
