"""One cell of the grid once more: trained from its subset manifest, passed through, probed, held against its scores."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lowdata_cpt.analysis.table import METRICS
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json, sha256_file
from lowdata_cpt.core.provenance import read_records
from lowdata_cpt.study import job_params as params
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.grid import Cell, cells, probes_of

NAME = re.compile(r"^(?P<backbone>[^/]+)/(?P<domain>[^/]+)/(?P<method>[^/]+)/n(?P<n>\d+)/s(?P<seed>\d+)/?$", re.ASCII)
WORK = Path("work/verify")
# On the machine, lock and thread count that made them, scores are equal to the last bit. Elsewhere other kernels round
# otherwise and training amplifies it; these bounds are about the spread between seeds of short runs.
TOLERANCE_FRACTION = 0.02
"""Largest difference of scores in [0, 1] (mIoU, accuracies, F1, δ)."""
TOLERANCE_RELATIVE = 0.05
"""Largest relative difference of the other metrics (RMSE, AbsRel)."""


Measure = tuple[str, str, str]
"""task, metric, split."""


class Score(NamedTuple):
    """One metric, stored and recomputed."""

    task: str
    metric: str
    split: str
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


def parse_cell(text: str, study: Study) -> Cell:
    """Read BACKBONE/DOMAIN/METHOD/nN/sSEED.

    Raises:
        UserError: it has another form, or the study has no such cell.
    """
    match = NAME.match(text)
    known = list(cells(study))
    example = "/".join(str(part) for part in (*known[-1][:3], f"n{known[-1].n}", f"s{known[-1].seed}"))
    if match is None:
        raise UserError(f"cell {text!r}: expected BACKBONE/DOMAIN/METHOD/nN/sSEED, for example {example}")
    cell = Cell(match["backbone"], match["domain"], match["method"], int(match["n"]), int(match["seed"]))
    if cell not in known:
        raise UserError(f"cell {text!r}: study {study.study} has no such cell; it has for example {example}")
    return cell


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


def inputs_of(cell: Cell, folder: Path) -> list[Path]:
    """Return what computing a cell needs: the backbone's weights, the data manifest, and its subset if it trains."""
    model = cell.model
    subset = folder / "subsets" / cell.domain / f"s{model.seed}" / f"n{model.n}.csv"
    manifest = folder / "data" / cell.domain / "manifest.json"
    return [folder / "backbones" / cell.backbone / "model.safetensors", manifest, *([subset] if model.n else [])]


def _run_cell(study: Study, cell: Cell, inputs: list[Path], work: Path, compute: list[str]) -> dict[Measure, float]:
    """Train, pass and probe a cell into folder `work`; return its scores. The only place that knows the commands."""
    weights, manifest, *subset = inputs
    data = ("--manifest", str(manifest))
    _command(
        *("pretrain", "--config", params.training_params(study, cell.backbone, cell.method)),
        *("--backbone", str(weights.parent), *data, *(["--subset", str(subset[0])] if subset else [])),
        *("--seed", str(cell.model.seed), "--checkpoints", str(work / "checkpoints"), "--out", str(work), *compute),
    )
    features = work / "features.safetensors"
    _command(
        *("features", "--config", params.features_params(study, cell.backbone, cell.domain)),
        *("--model", str(work / "export"), *data, "--out", str(features), *compute),
    )
    found: dict[Measure, float] = {}
    for probe in probes_of(study, cell.domain):
        out = work / f"{probe}.json"
        _command(
            *("probe", probe, "--config", params.probe_params(study, probe), "--features", str(features)),
            *(*data, "--seed", str(cell.seed), "--out", str(out), *compute),
        )
        for split, metrics in read_json(out)["metrics"].items():
            found |= {(probe, metric, split): float(value) for metric, value in metrics.items()}
    return found


def recompute(study: Study, cell: Cell, folder: Path, device: str = "auto") -> Recomputed:
    """Train, pass and probe one cell in a temporary folder below work/; nothing in `folder` is changed.

    Args:
        study: the study.
        cell: which cell.
        folder: the study's results; needs its backbone, data manifest, decoded images and, for a trained
            method, the cell's subset manifest.
        device: auto, cpu or cuda.

    Raises:
        UserError: an input is missing, the cell has no row in scores.csv, or a step fails.
    """
    stored = _stored(folder / "scores.csv", cell)
    inputs = inputs_of(cell, folder)
    for path in inputs:
        if not path.exists():
            raise UserError(f"{path}: missing; `make pull` gets it, `make reproduce` makes it")
    original = cell.model.folder(study.study) / "export" / "model.safetensors"
    compute = ["--device", device, "--threads", _threads(folder, cell.model.folder(study.study) / "cost.json")]
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as name:
        found = _run_cell(study, cell, inputs, Path(name), compute)
        weights = Path(name) / "export" / "model.safetensors"
        same = sha256_file(weights) == sha256_file(original) if original.exists() else None
    scores = [Score(*key, stored.get(key, math.nan), found.get(key, math.nan)) for key in sorted(stored.keys() | found)]
    return Recomputed(scores, same)


def _stored(scores: Path, cell: Cell) -> dict[Measure, float]:
    """Return the committed scores of a cell at its end: of its milestones the one that has seen most images."""
    if not scores.exists():
        raise UserError(f"{scores}: no such file")
    table = pd.read_csv(scores, float_precision="round_trip")
    for column, value in cell._asdict().items():
        table = table[table[column] == value]
    if table.empty:
        raise UserError(f"{scores}: has no row of cell {'/'.join(map(str, cell))}")
    table = table[table["images_seen"] == table["images_seen"].max()]
    keys = zip(table["task"], table["metric"], table["split"], strict=True)
    return {key: float(value) for key, value in zip(keys, table["value"], strict=True)}
