"""The workflow around the jobs: a dry run of more than 10,000 jobs, and the quick study beside its own jobs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.workflow.tiny import ROOT, environment, job_stats, tiny_study

from benchmarks.harness import Case

CORES = 2
LIMIT = 60.0  # seconds of a dry run


@contextmanager
def project(small: bool) -> Iterator[Path]:
    """Yield a project without results whose quick study is this repository's, or the tests' tiny one."""
    with tempfile.TemporaryDirectory() as name:
        folder = tiny_study(Path(name, "project"))
        if not small:
            shutil.copy(ROOT / "config/quick.yaml", folder / "config/quick.yaml")
        yield folder


def snakemake(folder: Path, *arguments: str) -> tuple[str, float]:
    """Run Snakemake in a project; return what it printed, and its peak memory in MiB without its jobs'.

    Raises:
        RuntimeError: it failed.
    """
    command = ["snakemake", "--cores", str(CORES), *arguments]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{text[-3000:]}")
    return text, used.ru_maxrss / 1024


def _never() -> None:
    raise AssertionError("its reference is not run")


def dry_run(small: bool) -> Case:
    """Return the case of a dry run."""
    seeds, least = (3, 10) if small else (600, 10_000)

    def ours() -> tuple[int, float]:
        with project(small) as folder:
            file = folder / "config/many.yaml"
            file.write_text(f"extends: quick.yaml\nstudy: many\nseeds: {list(range(seeds))}\n")
            text, peak = snakemake(folder, "--dry-run", "--quiet", "rules", "--configfile", str(file))
        return sum(job_stats(text).values()), peak

    def parity(made: tuple[int, float], _: Any) -> str:
        assert made[0] >= least, f"{made[0]} jobs"
        return f"{made[0]:,} jobs planned; peak memory {made[1]:.0f} MiB"

    return Case(f"`snakemake --dry-run` of the quick study with {seeds} seeds", f"a limit of {LIMIT:.0f} s", 1.0,
                ours, _never, parity, known=lambda _: LIMIT)  # fmt: skip


def whole(small: bool) -> Case:
    """Return the case of a study's wall."""

    def ours() -> tuple[int, float]:
        with project(small) as folder:
            snakemake(folder, "--quiet", *(["--until", "subset"] if small else []))
            times: dict[str, list[float]] = {}  # of each job, by its command: a record a file that it made
            for path in filter(Path.is_file, folder.glob(".snakemake/metadata/**/*")):
                record = json.loads(path.read_text())
                times.setdefault(record["shellcmd"], []).extend((record["starttime"], record["endtime"]))
        return len(times), sum(max(of) - min(of) for of in times.values())

    def parity(made: tuple[int, float], _: Any) -> str:
        assert made[1] > 0, f"{made[0]} jobs took no time"
        return f"{made[0]} jobs of {made[1]:.0f} s together, each with its own start of Python"

    return Case("the quick study, wall", f"its jobs' own seconds on {CORES} cores", 0.95, ours, _never, parity,
                wall=True, known=lambda made: made[1] / CORES)  # fmt: skip


def cases(small: bool) -> Iterator[Case]:
    """Yield the rows."""
    yield dry_run(small)
    yield whole(small)
