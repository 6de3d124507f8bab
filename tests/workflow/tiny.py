"""A whole study that takes a minute: nine small pictures, a tiny random ViT, one training step a method.

`tiny_study` writes a folder that is a project of its own (Snakefile, workflow, configuration, raw data), so that a
test may run, change, commit or break everything in it; `snakemake`, `dvc` and `lowdata` run a command there.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from lowdata_cpt.dev.fixtures import camvid

ROOT = Path(__file__).resolve().parents[2]
COPIED = (
    "Snakefile",
    "workflow",
    "config",
    "environment.yml",
    "dvc.yaml",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
)
STUDY: dict[str, Any] = {
    "study": "quick",
    "seeds": [0],
    "backbones": {"tiny": {"model": "test_vit", "weights": "random", "image_size": 32}},
    "domains": {"camvid": {"resolution": 32, "sizes": [4]}},
    "methods": {"base": {}, "diet_cp": {}, "mae": {}},
    "training": {"epochs": 1, "batch_size": 4, "max_steps": 1},
    "probes": {"examples": 1, "segmentation": {"steps": 2, "batch_size": 2, "lr_grid": [0.001, 0.003]}},
}


def merged(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with nested overrides; None removes a key."""
    result = copy.deepcopy(base)
    for key, value in overrides.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def write_config(folder: Path, **overrides: Any) -> None:
    """Write config/quick.yaml: the tiny study with nested overrides."""
    text = yaml.safe_dump(merged(STUDY, overrides), sort_keys=False)
    (folder / "config/quick.yaml").write_text(text, encoding="utf-8")


def tiny_study(folder: Path, **overrides: Any) -> Path:
    """Make `folder` a project with the tiny study as its quick study, raw data in data/camvid; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        elif source.exists():
            shutil.copy(source, target)
    (folder / "results").mkdir()
    shutil.copy(ROOT / "results/.gitignore", folder / "results/.gitignore")
    stages = yaml.safe_load((folder / "dvc.yaml").read_text())
    stages["vars"] = [{"studies": {"quick": stages["vars"][0]["studies"]["quick"]}}]
    (folder / "dvc.yaml").write_text(yaml.safe_dump(stages, sort_keys=False))
    write_config(folder, **overrides)
    camvid(folder / "data/camvid")
    return folder


def environment(**more: str) -> dict[str, str]:
    """Return the environment of the commands: this interpreter's programs, one thread, nobody's settings."""
    leaking = ("SNAKEMAKE_PROFILE", "LOWDATA_DATA", "GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE")
    kept = {key: value for key, value in os.environ.items() if key not in leaking}
    identity = {
        f"GIT_{who}_{what}": "tester@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    fixed = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "DVC_NO_ANALYTICS": "1", "SNAKEMAKE_CORES": "2"}
    # This checkout's packages, also where another checkout is installed.
    fixed["PYTHONPATH"] = os.pathsep.join(str(ROOT / name) for name in ("src", "executor/src"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | identity | fixed | {"PATH": path} | more


def run(folder: Path, *command: str, fails: bool = False, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a project, output captured; assert that it succeeds (or fails)."""
    done = subprocess.run(command, cwd=folder, env=environment(**more), capture_output=True, text=True, check=False)
    said = f"{' '.join(command)} -> {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    assert (done.returncode != 0) == fails, said
    return done


def snakemake(folder: Path, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run Snakemake on the project's quick study."""
    return run(folder, "snakemake", "--cores", "2", *arguments, **more)


def lowdata(folder: Path, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of the package."""
    return run(folder, sys.executable, "-m", "lowdata_cpt", *arguments, **more)


def dvc(folder: Path, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run DVC."""
    return run(folder, "dvc", *arguments, **more)


def git(folder: Path, *arguments: str, **more: Any) -> str:
    """Run git and return what it printed."""
    return run(folder, "git", *arguments, **more).stdout.strip()


def job_stats(said: str) -> dict[str, int]:
    """Return how many jobs of each rule Snakemake said that it would run."""
    table = said.split("Job stats:")[1].split("\n\n")[0]
    counts = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
    return {name: count for name, count in counts.items() if name not in ("total", "all")}


def planned(folder: Path, *arguments: str, **more: Any) -> dict[str, int]:
    """Return how many jobs of each rule a dry run wants; {} when there is nothing to do."""
    said = snakemake(folder, "--dry-run", *arguments, **more).stdout
    return {} if "Nothing to be done" in said else job_stats(said)


def edited_package(folder: Path, module: str, old: str, new: str) -> str:
    """Copy the package, change one module, and return the folder to put first on Python's path."""
    shutil.copytree(ROOT / "src/lowdata_cpt", folder / "lowdata_cpt", ignore=shutil.ignore_patterns("__pycache__"))
    (folder.parent / "config").mkdir(exist_ok=True)
    shutil.copy(ROOT / "config/code_versions.json", folder.parent / "config")
    path = folder / "lowdata_cpt" / module
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{module} has no {old!r} to change"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return str(folder)
