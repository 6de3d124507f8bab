"""A study of seconds in this process, with every kind of file that a path of the workflow reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lowdata_cpt.core.io import identity, sha256_file
from lowdata_cpt.dev.fixtures import MAKERS
from lowdata_cpt.dev.scale_down import SMALLER
from lowdata_cpt.jobs import collect, evaluate, report
from lowdata_cpt.jobs.chain import run_cell
from lowdata_cpt.jobs.pretrain import pretrain
from lowdata_cpt.study import job_params
from lowdata_cpt.study.grid import Cell, cells
from lowdata_cpt.study.load import validate
from lowdata_cpt.study.paths import Paths
from lowdata_cpt.training.loop import Run

GLARE = {name: SMALLER[name] for name in ("prototypes", "head_hidden")}
SETTINGS: dict[str, Any] = {
    "study": "s",
    "seeds": [0],
    "backbones": {"tiny": {"model": "test_vit", "weights": "random", "image_size": 64}},
    "domains": {"camvid": {"resolution": 64, "sizes": [4]}},
    "methods": {"base": {}, "glare": GLARE, "mae": {}},
    "training": {"epochs": 2, "batch_size": 4, "milestones": [4]},
    "probes": {"examples": 1, "segmentation": {"steps": 2, "batch_size": 2, "lr_grid": [0.001, 0.003]}},
}
STUDY = validate(SETTINGS)
PATHS = Paths("results/s")
CELLS = {cell.method: cell for cell in cells(STUDY)}


def make(folder: Path) -> None:
    """Run the study in `folder`, where the process stands."""
    MAKERS["camvid"](folder / "data/camvid")
    for cell in CELLS.values():
        run_cell(STUDY, cell, PATHS, device="cpu")
    gather()
    analyse()


def stop(patch: pytest.MonkeyPatch) -> None:
    """Leave the training of MAE, and the evaluation of GLARE, as a kill after the first milestone leaves them."""
    step, model = Run.take_step, evaluate.evaluate_model
    calls: list[int] = []

    def killed(*args: Any, **rest: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return (step if isinstance(args[0], Run) else model)(*args, **rest)

    patch.setattr(Run, "take_step", killed)
    patch.setattr(evaluate, "evaluate_model", killed)
    for work, method in ((train, "mae"), (score, "glare")):
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            work(CELLS[method])
    patch.setattr(Run, "take_step", step)
    patch.setattr(evaluate, "evaluate_model", model)


def train(cell: Cell) -> None:
    pretrain(job_params.pretrain_params(STUDY, cell), cell, PATHS, device="cpu")


def score(cell: Cell) -> None:
    evaluate.evaluate(job_params.evaluate_params(STUDY, cell), cell, PATHS, device="cpu")


def gather() -> None:
    collect.collect(STUDY, {}, PATHS)
    collect.trivial_baselines([PATHS.manifest("camvid")], PATHS.of_study("trivial_baselines.csv"))
    collect.examples(PATHS, "tiny", "camvid", PATHS.examples("tiny", "camvid"))


def analyse() -> None:
    report.claims(PATHS.root)
    report.statistics(PATHS.root)
    report.tables(PATHS.root)


def digest(*places: Path) -> str:
    """Return the hash of all results below some places: what is a measurement or a record is left out."""
    found = {
        path.as_posix(): sha256_file(path)
        for place in places
        for path in ([place] if place.is_file() else sorted(place.rglob("*")))
        if path.is_file() and not path.name.endswith(".prov.json") and path.name != "cost.json"
    }
    assert found
    return identity(found)
