"""One cell of the grid once more: trained from its subset manifest, passed through, probed, held against its scores."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lowdata_cpt.analysis.table import METRICS
from lowdata_cpt.backbones.weights import MODEL
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json, sha256_file
from lowdata_cpt.core.provenance import read_records
from lowdata_cpt.study.grid import Cell
from lowdata_cpt.study.paths import Paths

WORK = Path("work/verify")
# On the machine, lock and thread count that made them, scores are equal to the last bit. Elsewhere other kernels round
# otherwise and training amplifies it; these bounds are about the spread between seeds of short runs.
TOLERANCE_FRACTION = 0.02
"""Largest difference of scores in [0, 1] (mIoU, accuracies, F1, δ)."""
TOLERANCE_RELATIVE = 0.05
"""Largest relative difference of the other metrics (RMSE, AbsRel)."""


class Score(NamedTuple):
    """One metric, stored and recomputed."""

    task: str
    metric: str
    split: str
    images_seen: int
    stored: float
    found: float

    @property
    def holds(self) -> bool:
        """Whether the two agree within the stated tolerance."""
        if self.stored == self.found:
            return True
        known = METRICS.get(self.metric)
        if known is None or known.bounded:
            return math.isclose(self.stored, self.found, rel_tol=0, abs_tol=TOLERANCE_FRACTION)
        return math.isclose(self.stored, self.found, rel_tol=TOLERANCE_RELATIVE, abs_tol=1e-6)


class Recomputed(NamedTuple):
    """A cell's scores, and whether the weights came out as they are stored (None: those are not here)."""

    scores: list[Score]
    same_weights: bool | None


def _command(*arguments: str) -> None:
    """Run one command of the package in a process of its own, as the workflow does."""
    done = subprocess.run(
        [sys.executable, "-m", "lowdata_cpt", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": arguments[arguments.index("--threads") + 1]},
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise UserError(f"{arguments[0]} of the recomputed cell: {lines[-1].removeprefix('error: ')}")


def _threads(folder: Path, artifact: Path) -> str:
    """Return the thread count that made an artifact: it decides the last bit of a sum."""
    command = read_records(folder).get(artifact.relative_to(folder).as_posix(), {}).get("command", [])
    return str(command[command.index("--threads") + 1]) if "--threads" in command else "1"


def recompute(cell: Cell, folder: Path, device: str = "auto") -> Recomputed:
    """Train and evaluate one cell in a temporary folder below work/; nothing in `folder` is changed.

    Args:
        cell: which cell.
        folder: the study's results; needs its backbone, data manifest, decoded images and, for a trained
            method, the cell's subset.
        device: auto, cpu or cuda.

    Raises:
        UserError: the cell has no row in scores.csv, or a step fails.
    """
    stored, paths, trained = _stored(folder / "scores.csv", cell), Paths(folder), cell.trained
    end = f"i{max(images for *_, images in stored)}"
    original = paths.cell(trained) / "export" / end / MODEL
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as name:
        again = Paths(name)
        for part in ("backbones", "data", "subsets"):
            if (folder / part).exists():
                again.of_study(part).symlink_to((folder / part).resolve())
        for step, of in (("pretrain", trained), ("evaluate", cell)):
            options = ["--study", str(folder / "study.json"), "--results", name, "--cell", of.name, "--device", device]
            _command(step, *options, "--threads", _threads(folder, paths.cell(trained) / "cost.json"))
        found = {
            (probe, metric, split, int(images)): float(value)
            for images, probes in read_json(again.cell(cell) / "evaluation.json")["milestones"].items()
            for probe, result in probes.items()
            for split, metrics in result["metrics"].items()
            for metric, value in metrics.items()
        }
        weights = again.cell(trained) / "export" / end / MODEL
        same = sha256_file(weights) == sha256_file(original) if original.exists() else None
    scores = [
        Score(task, metric, split, images, stored.get(key, math.nan), found.get(key, math.nan))
        for key in sorted(stored.keys() | found.keys())
        for task, metric, split, images in (key,)
    ]
    return Recomputed(scores, same)


def _stored(scores: Path, cell: Cell) -> dict[tuple[str, str, str, int], float]:
    """Return (task, metric, split, images seen) -> value of a cell's rows in the committed table."""
    if not scores.exists():
        raise UserError(f"{scores}: no such file")
    table = pd.read_csv(scores, float_precision="round_trip")
    for column, value in cell._asdict().items():
        table = table[table[column] == value]
    if table.empty:
        raise UserError(f"{scores}: has no row of cell {cell.name}")
    keys = zip(table["task"], table["metric"], table["split"], table["images_seen"], strict=True)
    return {key: float(value) for key, value in zip(keys, table["value"], strict=True)}
