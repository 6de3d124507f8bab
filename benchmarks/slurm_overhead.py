"""Walls of one workflow of 20 short jobs on SLURM: this plugin beside the published ones, in one run.

    python -m benchmarks.slurm_overhead       (needs `make slurm-up`, and uv or pip to fetch the other plugins)

The workflow is four chains of five jobs, each of which sleeps for a known time; Snakemake's settings are the same for
all. The overhead of a plugin is what one link of a chain takes beyond its sleep: from one job's submission until its
successor may be submitted, the start of the inner Snakemake included. Snakemake's own start (a dry run) is left out.
Repeats take turns; medians are given.

`snakemake-executor-plugin-slurm` is measured twice: as it comes (it waits 40 s before its first look), and tuned to
look at once. Without accounting it has to be told to follow jobs by `squeue`. `-cluster-generic` submits with `sbatch`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.slurm.cluster import environment

from benchmarks.page import show

REPOSITORY = Path(__file__).resolve().parents[1]
PUBLISHED = (
    "snakemake-executor-plugin-slurm",
    "snakemake-executor-plugin-slurm-jobstep",
    "snakemake-executor-plugin-cluster-generic",
    "throttler",
)
PAGE = REPOSITORY / "executor" / "README.md"
RESULTS = REPOSITORY / "benchmarks" / "slurm_overhead.json"
CHAINS, LINKS = 4, 5
SNAKEFILE = f"""
rule all:
    input: expand("out/{{chain}}/{LINKS - 1}", chain=range({CHAINS}))
rule link:
    input: lambda wildcards: f"out/{{wildcards.chain}}/{{int(wildcards.i) - 1}}" if int(wildcards.i) else []
    output: "out/{{chain}}/{{i}}"
    resources: runtime=5, mem_mb=200
    shell: "sleep {{config[seconds]}}; touch {{output}}"
"""


def install(folder: Path) -> Path:
    """Install the published plugins on top of this environment's packages; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / f"python{version}" / "site-packages"
    # It sees this environment's packages, then its own: the same Snakemake for both.
    here = [path for path in sys.path if path.endswith("site-packages")] + [
        str(REPOSITORY / name) for name in ("src", "executor/src")
    ]
    (site / "shared.pth").write_text("\n".join(here) + "\n")
    target = ["--target", str(site), "--no-deps", *PUBLISHED]
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


def measure(python: Path, options: list[str], seconds: float, settings: dict[str, str]) -> float:
    """Return the wall seconds of one run of the workflow."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        directory = Path(name)
        (directory / "Snakefile").write_text(SNAKEFILE)
        command = [str(python), "-m", "snakemake", "--jobs", "10", "--latency-wait", "10", *options]
        start = time.perf_counter()
        answer = subprocess.run(
            [*command, "--config", f"seconds={seconds}"],
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


def contenders(published: Path, interval: int, status: str) -> dict[str, tuple[Path, list[str]]]:
    """Return each contender's Python and options."""
    both = ["--seconds-between-status-checks", str(interval)]
    theirs = ["--executor", "slurm", "--slurm-status-command", status, "--slurm-no-account", *both]
    tuned = ["--slurm-init-seconds-before-status-checks", "1"]
    ours = ["--executor", "submitit", *both]
    sbatch = "sbatch --parsable --time={resources.runtime} --mem={resources.mem_mb} --output=/dev/null"
    return {
        "submitit (this)": (Path(sys.executable), ours),
        f"submitit, `array-size: {CHAINS}`": (Path(sys.executable), [*ours, "--submitit-array-size", str(CHAINS)]),
        "slurm": (published, theirs),
        "slurm, first look after 1 s": (published, [*theirs, *tuned]),
        "cluster-generic with `sbatch`": (
            published,
            ["--executor", "cluster-generic", "--cluster-generic-submit-cmd", sbatch, *both],
        ),
    }


def main() -> None:
    """Measure all, print the table, and write it with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="work of each job")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--interval", type=int, default=10, help="--seconds-between-status-checks for all")
    parser.add_argument("--status", default="squeue", choices=["squeue", "sacct"], help="the slurm plugin's source")
    parser.add_argument("--write", action="store_true", help="write the JSON file and the README's table")
    arguments = parser.parse_args()
    walls: dict[str, list[float]] = {}
    starts = []
    with tempfile.TemporaryDirectory() as folder:
        settings = with_srun(Path(folder))
        them = contenders(install(Path(folder) / "venv"), arguments.interval, arguments.status)
        for _ in range(arguments.repeats):
            starts.append(measure(Path(sys.executable), ["--dry-run"], arguments.seconds, settings))
            for name, (python, options) in them.items():
                walls.setdefault(name, []).append(measure(python, options, arguments.seconds, settings))
                print(f"{name}: {walls[name][-1]:.1f} s", flush=True)
    start = statistics.median(starts)
    rows = []
    for name, values in walls.items():
        wall = statistics.median(values)
        overhead = (wall - start) / LINKS - arguments.seconds
        rows.append({"plugin": name, "wall_s": round(wall, 1), "overhead_s": round(overhead, 1)})
    lines = ["| plugin | wall | overhead a job |", "|---|---:|---:|"]
    lines += [f"| {row['plugin']} | {row['wall_s']} s | {row['overhead_s']} s |" for row in rows]
    text = (
        f"{CHAINS * LINKS} jobs of {arguments.seconds:g} s in {CHAINS} chains, `--seconds-between-status-checks "
        f"{arguments.interval}`, {os.cpu_count()} cores shared (load {os.getloadavg()[0]:.0f}), medians "
        f"of {arguments.repeats} turns; Snakemake's own start, {start:.1f} s, is left out of the overhead:\n\n"
        + "\n".join(lines)
    )
    print(text)
    if arguments.write:
        found = {"jobs": CHAINS * LINKS, "chains": CHAINS, "seconds": arguments.seconds, "start_s": round(start, 1)}
        RESULTS.write_text(json.dumps(found | {"repeats": arguments.repeats, "plugins": rows}, indent=1) + "\n")
        show(PAGE, f"benchmarks/{RESULTS.name}", text)


if __name__ == "__main__":
    main()
