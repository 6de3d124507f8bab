"""The wheel of the plugin, in an environment with Snakemake alone, runs somebody else's workflow on SLURM."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.slurm.cluster import REPOSITORY, environment

pytestmark = pytest.mark.slurm

SNAKEFILE = """
rule all:
    input: "total.txt"
rule count:
    output: "counts/{letter}.txt"
    resources: runtime=5, mem_mb=200
    shell: "echo {wildcards.letter} | wc -c > {output}"
rule total:
    input: expand("counts/{letter}.txt", letter=["a", "b"])
    output: "total.txt"
    resources: runtime=5, mem_mb=200
    shell: "cat {input} > {output}"
"""


def find_uv() -> str:
    """Return uv, which `make` puts below .tools."""
    found = shutil.which("uv", path=f"{REPOSITORY / '.tools/bin'}:{os.environ['PATH']}")
    return found or pytest.skip("no uv here: make .venv/.ready")


def test_the_wheel_runs_a_foreign_workflow_beside_snakemake_alone(cluster: None, tmp_path: Path) -> None:
    uv, own = find_uv(), tmp_path / "environment"
    # Nothing of this repository: neither its packages nor its paths.
    settings = {name: value for name, value in environment().items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            [str(word) for word in command], cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    run(uv, "build", "--wheel", REPOSITORY / "executor", "--out-dir", tmp_path / "dist")
    (wheel,) = (tmp_path / "dist").glob("snakemake_executor_plugin_submitit-*.whl")
    run(uv, "venv", own)
    run(uv, "pip", "install", "--python", own / "bin/python", "snakemake", wheel)
    assert "lowdata" not in run(uv, "pip", "list", "--python", own / "bin/python")
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    settings["PATH"] = f"{own / 'bin'}:{settings['PATH']}"
    said = run("snakemake", "--executor", "submitit", "--jobs", "4", "--submitit-array-size", "10")
    assert (tmp_path / "total.txt").read_text() == "2\n2\n"
    assert said.count(" submitted (count)") == 2
    assert (tmp_path / ".snakemake/submitit/efficiency.md").is_file()
