"""Sidecars: beside each artifact, a JSON file that says how it came about."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from lowdata_cpt import __version__
from lowdata_cpt.core.io import sha256_file, write_json
from lowdata_cpt.core.paths import REPOSITORY

PACKAGES = ("torch", "timm", "numpy", "pandas", "scikit-learn", "safetensors", "mujoco", "snakemake", "dvc")
SUFFIX = ".prov.json"


def sidecar_path(artifact: str | Path) -> Path:
    """Return where the sidecar of `artifact` lies: `model.safetensors` -> `model.safetensors.prov.json`."""
    artifact = Path(artifact)
    return artifact.with_name(artifact.name + SUFFIX)


def artifact_of(sidecar: Path) -> Path:
    """Return the file that a sidecar describes."""
    return sidecar.with_name(sidecar.name.removesuffix(SUFFIX))


@functools.cache
def code_state() -> dict[str, Any]:
    """Return the commit and whether tracked files other than results differ from it; nulls outside a checkout."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=30
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit, changes = (
        git("rev-parse", "HEAD"),
        git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results", ":!dvc.lock"),
    )
    lock = REPOSITORY / "uv.lock"
    return {
        "version": __version__,
        "commit": commit,
        "dirty": None if changes is None else bool(changes),
        "lock_sha256": sha256_file(lock) if lock.exists() else None,
    }


@functools.cache
def environment() -> dict[str, Any]:
    """Return interpreter, platform and package versions."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": processor(),
        "packages": versions,
    }


def processor() -> str:
    """Return the CPU's model: together with device and thread count it decides the last bit of a result."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write_sidecar(
    artifact: str | Path,
    *,
    inputs: list[str | Path] | None = None,
    config: Any = None,
    seconds: float | None = None,
    **facts: Any,
) -> None:
    """Write the sidecar of `artifact`: its hash, its inputs' hashes, config, command, code, environment, job."""
    artifact = Path(artifact)
    write_json(
        sidecar_path(artifact),
        {
            "artifact": {"path": artifact.name, "sha256": sha256_file(artifact), "bytes": artifact.stat().st_size},
            "inputs": [{"path": str(path), "sha256": sha256_file(path)} for path in inputs or []],
            "config": config,
            "command": ["lowdata-cpt", *sys.argv[1:]],
            "code": code_state(),
            "environment": environment(),
            "job": {"slurm_job_id": os.environ.get("SLURM_JOB_ID"), "seconds": seconds, "ended": int(time.time())},
            **facts,
        },
    )
