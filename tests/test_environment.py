"""environment.yml, requirements.txt, pyproject.toml and uv.lock say the same."""

from __future__ import annotations

import re
import subprocess
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


def test_environment_installs_the_exported_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip[0] == "-r requirements.txt"
    assert set(pip[1:]) == {f"-e {folder}" for folder in members()}
    python = next(d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python "))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert python == f"python {project['requires-python']}"


def test_every_dependency_is_in_the_lock() -> None:
    """What nothing else says: every `uv` call is frozen, so that a lock that was forgotten is taken as it is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split(r"[\[><= ]", d)[0].lower() for d in project["dependencies"]} - set(members().values())
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert wanted <= set(re.findall(r"^([A-Za-z0-9._-]+)", text, re.MULTILINE))


def test_requirements_are_pins_only() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not re.match(r"^(\s*#|[A-Za-z0-9._-]+(\[[^\]]*\])?==)", line)] == []


def test_the_lock_names_no_private_index() -> None:
    text = (ROOT / "uv.lock").read_text(encoding="utf-8")
    hosts = set(re.findall(r"https?://([^/\"]+)", text))
    assert hosts
    assert all(re.fullmatch(r"[a-z.-]+\.org", host) for host in hosts), hosts


HOSTS = """127.0.0.1 bucket github.com host.example.org huggingface.co s3.example.org schema.org spdx.org w3id.org
snakemake.readthedocs.io www.apache.org www.researchobject.org"""
"""Hosts that files may name: vocabularies, licences, documentation, examples, and the hub of `weights: hub`."""


def test_no_file_names_another_host() -> None:
    said = subprocess.run(
        ["git", "grep", "-hoIE", r"[a-z][a-z0-9+.]*://[A-Za-z0-9._-]+", "--", ".", ":!uv.lock"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    hosts = {line.split("://")[1] for line in said.split() if not line.startswith("file:")}
    assert len(hosts) > 5
    assert not hosts - set(HOSTS.split())


def test_the_installer_is_pinned_by_the_hashes_of_its_wheels() -> None:
    """Whatever the index serves, pip takes these bytes or none; nothing else that set-up runs is downloaded bare."""
    pinned = (ROOT / "tools/uv.txt").read_text(encoding="utf-8")
    assert re.findall(r"^(\S+)==[0-9.]+ ", pinned, re.MULTILINE) == ["uv"]
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", pinned)) >= 4
    installs = [
        line
        for path in (ROOT / "tools").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"pip install|curl |wget ", line)
    ]
    assert len(installs) == 1
    assert "--require-hashes" in installs[0]
    assert "--only-binary :all:" in installs[0]
