"""A cell's evaluation: every milestone, its per-image outcomes, and what is kept when it is killed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json, sha256_file
from lowdata_cpt.dev.fixtures import MAKERS
from lowdata_cpt.jobs import evaluate as job
from lowdata_cpt.jobs.chain import run_inputs
from lowdata_cpt.jobs.pretrain import pretrain
from lowdata_cpt.study.grid import Cell, cells
from lowdata_cpt.study.job_params import evaluate_params, pretrain_params
from lowdata_cpt.study.load import validate
from lowdata_cpt.study.paths import Paths

DENSE = {"steps": 3, "batch_size": 2, "lr_grid": [1e-3, 1e-2]}
STUDY: dict[str, Any] = {
    "study": "s",
    "seeds": [1],
    "backbones": {"tiny": {"model": "test_vit", "weights": "random", "image_size": 32}},
    "domains": {"nyuv2": {"resolution": 32, "sizes": [4]}},
    "methods": {"base": {}, "mae": {}},
    "training": {"epochs": 2, "batch_size": 4, "milestones": [4]},
    "probes": {"segmentation": DENSE, "depth": DENSE},
}
PATHS = Paths("results/s")
ARTEFACTS = ("evaluation.json", "outcomes.npz", "examples.npz")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the models of a cell at two milestones, 4 and 8 images."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LOWDATA_DATA", "data")
        MAKERS["nyuv2"](Path("data/nyuv2"))
        study = validate(STUDY)
        _, cell = cells(study)
        run_inputs(study, cell, PATHS)
        pretrain(pretrain_params(study, cell), cell, PATHS, device="cpu")
    return folder


@pytest.fixture
def cell(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cell:
    """Stand in a copy of that folder."""
    shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    _, found = cells(validate(STUDY))
    return found


def params(cell: Cell, **changed: Any) -> dict[str, Any]:
    return evaluate_params(validate(STUDY), cell) | changed


def evaluated(cell: Cell, **changed: Any) -> dict[str, str]:
    """Evaluate and return the hash of what was written."""
    job.evaluate(params(cell, **changed), cell, PATHS, device="cpu")
    return {name: sha256_file(PATHS.cell(cell) / name) for name in ARTEFACTS}


def test_every_milestone_has_metrics_and_the_outcomes_they_are_of(cell: Cell) -> None:
    evaluated(cell)
    found = read_json(PATHS.cell(cell) / "evaluation.json")["milestones"]
    assert list(found) == ["4", "8"]
    with np.load(PATHS.cell(cell) / "outcomes.npz", allow_pickle=False) as outcomes:
        names = {f"i{i}/{name}" for i in (4, 8) for name in ("segmentation/counts", "depth/errors")}
        assert set(outcomes.files) == names
        for images, probes in found.items():
            counts, errors = (outcomes[f"i{images}/{name}"] for name in ("segmentation/counts", "depth/errors"))
            assert (counts.dtype, errors.dtype) == (np.int32, np.float32)
            assert len(counts) == len(errors) == probes["depth"]["counts"]["test"]
            hits, true, predicted = counts.sum(0).T.astype(np.int64)
            union = true + predicted - hits
            assert probes["segmentation"]["metrics"]["test"]["miou"] == (hits[union > 0] / union[union > 0]).mean()
            rmse = np.nanmean(errors[:, 0].astype(np.float64))
            assert probes["depth"]["metrics"]["test"]["rmse"] == pytest.approx(rmse, rel=1e-6)
        assert not np.array_equal(outcomes["i4/depth/errors"], outcomes["i8/depth/errors"]), "one model for both"


def killed_at_the_second(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Kill an evaluation at its second model; return the calls so far, to which later ones are added."""
    calls: list[int] = []
    evaluate_model = job.evaluate_model

    def counted(*args: Any, **rest: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate_model(*args, **rest)

    monkeypatch.setattr(job, "evaluate_model", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluated(cell)
    return calls


def test_a_killed_evaluation_resumes_at_its_milestone(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluated(cell)
    for name in ARTEFACTS:
        (PATHS.cell(cell) / name).unlink()
    calls = killed_at_the_second(cell, monkeypatch)
    assert not any((PATHS.cell(cell) / name).exists() for name in ARTEFACTS)
    assert evaluated(cell) == whole
    assert len(calls) == 3, "the first milestone was computed once"
    assert not list(Path("work").rglob("*-evaluation")), "partial results are left behind"


@pytest.mark.parametrize("other", ["settings", "model"])
def test_partial_results_of_something_else_are_not_used(
    cell: Cell, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    calls = killed_at_the_second(cell, monkeypatch)
    if other == "model":
        shutil.copytree(PATHS.cell(cell) / "export/i8", PATHS.cell(cell) / "export/i4", dirs_exist_ok=True)
    evaluated(cell, code="another" if other == "settings" else params(cell)["code"])
    assert len(calls) == 4, "the killed one's first milestone was taken"


@pytest.mark.parametrize("changed", [{"precision": "bf16"}, {"image_size": 48}])
def test_precision_and_image_size_reach_the_features(cell: Cell, changed: dict[str, Any]) -> None:
    evaluated(cell)
    with np.load(PATHS.cell(cell) / "outcomes.npz", allow_pickle=False) as outcomes:
        before = outcomes["i8/depth/errors"]
    evaluated(cell, **changed)
    with np.load(PATHS.cell(cell) / "outcomes.npz", allow_pickle=False) as outcomes:
        assert not np.array_equal(outcomes["i8/depth/errors"], before)


@pytest.mark.parametrize(
    ("place", "changed", "expected"),
    [
        ("training", {"precision": "bf16"}, {"precision": "bf16"}),
        ("probes", {"image_sizes": {"nyuv2": 48}}, {"image_size": 48}),
        ("backbones", {"tiny": {"model": "test_vit", "weights": "random", "image_size": 48}}, {"image_size": 48}),
    ],
)
def test_precision_and_image_size_are_parameters_of_the_job(
    place: str, changed: dict[str, Any], expected: dict[str, Any]
) -> None:
    study = validate(STUDY | {place: STUDY[place] | changed})
    _, cell = cells(study)
    before = evaluate_params(validate(STUDY), cell)
    assert evaluate_params(study, cell) == before | expected
    assert before["precision"] == "fp32"
    assert before["image_size"] == 32


def test_a_cell_without_a_model_is_one_sentence(cell: Cell) -> None:
    shutil.rmtree(PATHS.cell(cell) / "export")
    with pytest.raises(UserError, match="no exported model"):
        evaluated(cell)
