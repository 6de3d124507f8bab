"""environment.yml, requirements.txt, pyproject.toml and uv.lock say the same."""

from __future__ import annotations

import re
import tomllib

import yaml

from lowdata_cpt.dev.generate import ROOT


def members() -> dict[str, str]:
    """The folders of this checkout's own distributions and their names."""
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]["workspace"]
    projects = {
        folder: tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for folder in (".", *workspace["members"])
    }
    return {folder: project["name"] for folder, project in projects.items()}


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    found = (re.match(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;]+)", line) for line in lines)
    return {m[1].lower().replace("_", "-"): m[2] for m in found if m}


def test_environment_installs_the_exported_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip[0] == "-r requirements.txt"
    assert set(pip[1:]) == {f"-e {folder}" for folder in members()}
    python = next(d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python "))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert python == f"python {project['requires-python']}"


def test_every_dependency_is_pinned_at_the_locks_version() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    locked: dict[str, set[str]] = {}
    for package in lock["package"]:
        locked.setdefault(package["name"], set()).add(package.get("version", ""))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split(r"[\[><= ]", d)[0].lower() for d in project["dependencies"]}
    assert wanted - set(members().values()) <= set(pins())
    for name, version in pins().items():
        assert version in locked[name], name


def test_requirements_are_pins_only() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not re.match(r"^(\s*#|[A-Za-z0-9._-]+(\[[^\]]*\])?==)", line)] == []
    assert not set(members().values()) & set(pins())


def test_the_lock_names_no_private_index() -> None:
    text = (ROOT / "uv.lock").read_text(encoding="utf-8")
    hosts = set(re.findall(r"https?://([^/\"]+)", text))
    assert hosts
    assert all(re.fullmatch(r"[a-z.-]+\.org", host) for host in hosts), hosts
