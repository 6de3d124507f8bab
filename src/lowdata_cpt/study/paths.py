"""Where a study's files lie: one function for each kind of path, for names and for Snakemake's wildcards alike."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

CHECKPOINTS = Path("work/checkpoints")
"""Not below results/: Snakemake deletes a job's outputs before each attempt, and a resumed run needs its state."""


class Named(Protocol):
    """A cell of any kind of study."""

    @property
    def name(self) -> str:
        """What stands for its folder, steps between slashes."""


class Paths:
    """The files of one study below its folder `root` (results/<study>)."""

    def __init__(self, root: str | Path, work: Path | None = None) -> None:
        """Name the files below `root`; unfinished trainings lie below `work`, or in a place of the study's own."""
        self.root = Path(root)
        self.work = work or CHECKPOINTS / self.root.relative_to(self.root.anchor)

    def of_study(self, name: str) -> Path:
        """Return a file of the whole study: study.json, scores.csv, …."""
        return self.root / name

    def manifest(self, domain: str) -> Path:
        """Return the manifest of a decoded domain; its `store` lies beside it."""
        return self.root / "data" / domain / "manifest.json"

    def backbone(self, name: str) -> Path:
        """Return the model folder of a released backbone."""
        return self.root / "backbones" / name

    def subset(self, domain: str, n: int | str, seed: int | str) -> Path:
        """Return the list of the n drawn images."""
        return self.root / "subsets" / domain / f"s{seed}" / f"n{n}.csv"

    def cell(self, cell: Named) -> Path:
        """Return a cell's folder: `export/` of each milestone, log, cost, evaluation."""
        return self.root / "cells" / cell.name

    def checkpoints(self, cell: Named) -> Path:
        """Return where the unfinished training of a cell keeps its state."""
        return self.work / cell.name

    def diagnostics(self, backbone: str, domain: str, method: str) -> Path:
        """Return what a method shows of its inside on a domain."""
        return self.root / "qualitative" / f"diagnostics-{backbone}-{domain}-{method}.npz"

    def examples(self, backbone: str, domain: str) -> Path:
        """Return a domain's example predictions of every method."""
        return self.root / "qualitative" / f"examples-{backbone}-{domain}.npz"

    def log(self, rule: str, name: str = "") -> Path:
        """Return the log of a job."""
        return self.root / "logs" / rule / f"{name}.log" if name else self.root / "logs" / f"{rule}.log"

    def benchmark(self, rule: str, name: str) -> Path:
        """Return Snakemake's measurement of a job."""
        return self.root / "benchmarks" / rule / f"{name}.tsv"
