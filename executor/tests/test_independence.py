"""The distribution stands alone: it declares everything it imports, and nothing of the project it was made for."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from snakemake_executor_plugin_submitit import ExecutorSettings

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "snakemake_executor_plugin_submitit"
HEAVY = {"torch", "torchvision", "timm", "mujoco", "dvc", "pandas", "numpy", "snakemake", "lowdata_cpt"}


def test_importing_every_module_loads_nothing_heavy() -> None:
    names = [f"{PACKAGE.name}.{path.stem}" for path in sorted(PACKAGE.glob("*.py")) if path.stem != "__init__"]
    assert f"{PACKAGE.name}.executor" in names
    program = (
        f"import importlib, json, sys; sys.path.insert(0, {str(SOURCE)!r})\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(json.loads(answer.stdout))
    assert {"submitit", PACKAGE.name} <= loaded
    assert loaded & HEAVY == set()


def test_the_dependencies_are_exactly_what_is_imported() -> None:
    imported = set()
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[\[><=~ ]", line)[0].replace("-", "_") for line in project["dependencies"]}
    assert imported - set(sys.stdlib_module_names) - {PACKAGE.name} == declared


def test_the_readme_names_every_setting_module_and_tests_that_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## Settings")[2].partition("## States")[0]
    named = set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE))
    assert named == {item.name.replace("_", "-") for item in dataclasses.fields(ExecutorSettings)}
    modules = readme.partition("## Modules")[2].partition("\n## ")[0]
    listed = {
        name for row in re.findall(r"^\| (`.*?) \|", modules, re.MULTILINE) for name in re.findall("`(.+?)`", row)
    }
    assert listed == {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    tests = set(re.findall(r"`(test_[a-z_]+)`", readme))
    assert tests
    assert {name for name in tests if not (ROOT / "tests" / f"{name}.py").exists()} == set()
