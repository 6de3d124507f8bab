"""Overhead of a SLURM job: this plugin beside the published snakemake-executor-plugin-slurm, in one run.

    python benchmarks/slurm_overhead.py                 (needs `make slurm-up`, and uv or pip to fetch the other plugin)

Both run the same chain of jobs, each of which sleeps for a known time, with the same Snakemake settings. Chained jobs
never overlap, so (wall time - work) / jobs is what one job costs from submission until its successor may start, the
start of the inner Snakemake included. A run without any job is subtracted: it is Snakemake's own start.

The published plugin is measured twice: as it comes (it waits 40 s before its first look), and tuned to look at once.
Without accounting it has to be told to follow jobs by `squeue`; that is done in both cases.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PUBLISHED = "snakemake-executor-plugin-slurm"
SNAKEFILE = """
JOBS, SECONDS = int(config["jobs"]), float(config["seconds"])
rule all:
    input: f"out/{JOBS - 1}"
rule link:
    input: lambda wildcards: f"out/{int(wildcards.i) - 1}" if int(wildcards.i) else []
    output: "out/{i}"
    resources: runtime=5, mem_mb=200
    shell: "sleep {SECONDS}; touch {output}"
"""


def environment() -> dict[str, str]:
    """The environment in which SLURM's programs find the local cluster."""
    settings = dict(os.environ)
    path = REPOSITORY / ".slurm" / "env"
    if path.exists():
        for line in path.read_text().splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            settings[name] = value.replace("$PATH", settings.get("PATH", ""))
    return settings


def install(folder: Path) -> Path:
    """Install the published plugin on top of this environment's packages; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / f"python{version}" / "site-packages"
    # It sees this environment's packages, then its own: the same Snakemake for both.
    here = [path for path in sys.path if path.endswith("site-packages")] + [
        str(REPOSITORY / name) for name in ("src", "executor/src")
    ]
    (site / "shared.pth").write_text("\n".join(here) + "\n")
    target = ["--target", str(site), "--no-deps", PUBLISHED, f"{PUBLISHED}-jobstep", "throttler"]
    uv = shutil.which("uv") or next((str(p) for p in REPOSITORY.glob(".tools/**/uv") if p.is_file()), None)
    command = [uv, "pip", "install", "--quiet"] if uv else [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*command, *target], check=True)
    return python


def with_srun(folder: Path) -> dict[str, str]:
    """Return the environment with an `srun` that knows the local cluster.

    The published plugin drops SLURM_CONF on the way to the job; a cluster in /etc/slurm would not need this.
    """
    settings = environment()
    real = shutil.which("srun", path=settings["PATH"])
    if real and "SLURM_CONF" in settings:
        shim = folder / "srun"
        shim.write_text(f'#!/bin/sh\nSLURM_CONF="{settings["SLURM_CONF"]}" exec {real} "$@"\n')
        shim.chmod(0o755)
        settings["PATH"] = f"{folder}:{settings['PATH']}"
    return settings


def measure(python: Path, options: list[str], jobs: int, seconds: float, settings: dict[str, str]) -> float:
    """Return the wall seconds of one chain."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        directory = Path(name)
        (directory / "Snakefile").write_text(SNAKEFILE)
        command = [str(python), "-m", "snakemake", "--jobs", "10", "--latency-wait", "10", *options]
        start = time.perf_counter()
        answer = subprocess.run(
            [*command, "--config", f"jobs={jobs}", f"seconds={seconds}"],
            cwd=directory,
            env=settings,
            capture_output=True,
            text=True,
            timeout=1800,
        )
        elapsed = time.perf_counter() - start
        if answer.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{answer.stdout[-2000:]}{answer.stderr[-3000:]}")
    return elapsed


def main() -> None:
    """Measure both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=4, help="length of the chain")
    parser.add_argument("--seconds", type=float, default=2.0, help="work of each job")
    parser.add_argument("--interval", type=int, default=10, help="--seconds-between-status-checks for both")
    parser.add_argument("--status", default="squeue", choices=["squeue", "sacct"], help="the published plugin's source")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    arguments = parser.parse_args()
    both = ["--seconds-between-status-checks", str(arguments.interval)]
    with tempfile.TemporaryDirectory() as folder:
        published = install(Path(folder) / "venv")
        theirs = ["--executor", "slurm", "--slurm-status-command", arguments.status, "--slurm-no-account", *both]
        tuned = ["--slurm-init-seconds-before-status-checks", "1"]
        contenders = {
            "submitit (this)": (Path(sys.executable), ["--executor", "submitit", *both]),
            "slurm (published)": (published, theirs),
            "slurm (tuned)": (published, [*theirs, *tuned]),
        }
        settings = with_srun(Path(folder))
        start = measure(Path(sys.executable), ["--dry-run"], arguments.jobs, arguments.seconds, settings)
        overhead: dict[str, float] = {}
        for name, (python, options) in contenders.items():
            wall = measure(python, options, arguments.jobs, arguments.seconds, settings)
            overhead[name] = (wall - start) / arguments.jobs - arguments.seconds
            print(f"{name:18s} {wall:7.1f} s for {arguments.jobs} chained jobs: overhead {overhead[name]:6.2f} s a job")
    ours = overhead["submitit (this)"]
    ratios = {name: value / ours for name, value in overhead.items() if name != "submitit (this)"}
    for name, ratio in ratios.items():
        print(f"ratio {name} / this: {ratio:.2f}")
    print(f"(Snakemake's own start, subtracted: {start:.1f} s)")
    if arguments.json:
        arguments.json.write_text(json.dumps({"seconds_per_job": overhead, "ratio": ratios}, indent=1) + "\n")


if __name__ == "__main__":
    main()
