"""SIGKILL at random moments of every step of every method: the same command goes on, and the results are bit-equal.

Each step is a process of its own, forked from this one, which has torch loaded: a kill costs the work that it undoes
and no start. `tests/workflow/test_study.py` kills trainings that the command line started, and Snakemake itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lowdata_cpt.dev.fixtures import MAKERS
from lowdata_cpt.dev.scale_down import SMALLER
from lowdata_cpt.jobs import evaluate, inputs
from lowdata_cpt.jobs.pretrain import backbone, pretrain
from lowdata_cpt.methods.registry import METHODS
from lowdata_cpt.study import job_params
from lowdata_cpt.study.grid import Cell, cells
from lowdata_cpt.study.load import validate
from lowdata_cpt.study.paths import Paths
from tests.chaos.conftest import Record, count
from tests.chaos.study import SETTINGS, digest

NAMED = {model.model_fields["method"].default: model for model in METHODS if model.learner_path}
SMALL = {
    name: {key: value for key, value in SMALLER.items() if key in model.model_fields} for name, model in NAMED.items()
}
STUDY = validate(SETTINGS | {"methods": {"base": {}} | SMALL})
PATHS = Paths("results/s")
CELLS = {cell.method: cell for cell in cells(STUDY)}
DOMAIN, SUBSET = PATHS.manifest("camvid"), PATHS.subset("camvid", 4, 0)
SCORES = ("evaluation.json", "outcomes.npz", "examples.npz")


def trained(cell: Cell) -> Callable[[], None]:
    params = job_params.pretrain_params(STUDY, cell)
    return lambda: pretrain(params, cell, PATHS, device="cpu", checkpoint_seconds=0.0)


def scored(cell: Cell) -> Callable[[], None]:
    return lambda: evaluate.evaluate(job_params.evaluate_params(STUDY, cell), cell, PATHS, device="cpu")


STEPS: dict[str, tuple[Callable[[], None], list[Path]]] = {
    "data": (lambda: inputs.data(job_params.data_params(STUDY, "camvid"), DOMAIN), [DOMAIN.parent]),
    "backbone": (
        lambda: backbone(job_params.backbone_params(STUDY, "tiny"), PATHS.backbone("tiny")),
        [PATHS.backbone("tiny")],
    ),
    "subset": (lambda: inputs.subset(job_params.subset_params(STUDY, 4, 0), DOMAIN, SUBSET), [SUBSET]),
}
for method in ("base", *NAMED):
    folder = PATHS.cell(CELLS[method])
    STEPS[f"train {method}"] = (trained(CELLS[method]), [folder / "export"])
    STEPS[f"evaluate {method}"] = (scored(CELLS[method]), [folder / name for name in SCORES])


def start(work: Callable[[], None]) -> int:
    """Run a step in a forked process; return its id."""
    process = os.fork()
    if not process:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            work()
            status = 0
        finally:
            os._exit(status)
    return process


def finish(process: int) -> int:
    """Wait for a process and return its status, minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_killed_at_any_moment_the_same_step_ends_bit_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    monkeypatch.setenv("LOWDATA_DATA", "data")
    wanted, whole, killed = count(200, 24), tmp_path / "whole", tmp_path / "killed"
    for place in (whole, killed):
        MAKERS["camvid"](place / "data/camvid")
    spent: dict[str, float] = {}
    good: dict[str, str] = {}
    monkeypatch.chdir(whole)
    for name, (work, results) in STEPS.items():
        before = time.monotonic()
        assert finish(start(work)) == 0, name
        spent[name], good[name] = time.monotonic() - before, digest(*results)
    monkeypatch.chdir(killed)
    generator, kills = np.random.default_rng(5), 0
    for number, (name, (work, results)) in enumerate(STEPS.items()):
        share = wanted * (number + 1) // len(STEPS)
        while kills < share:
            process = start(work)
            time.sleep(generator.uniform(0, spent[name]))
            os.kill(process, signal.SIGKILL)
            status = finish(process)
            assert status in (0, -signal.SIGKILL), f"{name}: did not go on after a kill (status {status})"
            if status:
                kills += 1
            else:
                # It was faster than the first time. Snakemake removes what a step makes before it runs it again.
                spent[name] *= 0.8
                for result in results:
                    shutil.rmtree(result) if result.is_dir() else result.unlink()
        assert finish(start(work)) == 0, f"{name}: did not go on after a kill"
        assert digest(*results) == good[name], f"{name}: another result after kills"
    left = [path for path in Path().rglob(".*") if path.name not in (".cache",)]
    unfinished = list(Path("work").rglob("*.safetensors")) + list(Path("work").rglob("*.npz"))
    record(
        "kills",
        {
            "SIGKILLs": kills,
            f"steps of {len(NAMED)} methods, data and backbone": len(STEPS),
            "other results": 0,
            "temporaries left": len(left) + len(unfinished),
        },
    )
    assert not left
    assert not unfinished
    assert kills == wanted
