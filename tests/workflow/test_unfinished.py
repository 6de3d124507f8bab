"""A study that is left and gone on with elsewhere: the answer so far, packed cells, what Snakemake makes of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.workflow.tiny import lowdata, planned, snakemake, tiny_study, write_config

pytestmark = pytest.mark.slow
SETTINGS = {"keep_models": False, "methods": {"base_domain_norm": {}}}
CELLS = "results/quick/cells/tiny/camvid"
FINISHED = ("base/n0", "diet_cp/n4")
RATE = {"methods": {"base_domain_norm": {}, "diet_cp": {"optimiser": {"lr": 5e-5}}}}


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of which two of four cells are finished and packed."""
    folder = tiny_study(tmp_path_factory.mktemp("left") / "p", **SETTINGS)
    snakemake(folder, "--", *(f"{CELLS}/{name}/s0/evaluation.json" for name in FINISHED))
    stale = folder / "results/quick/tables/scores-tiny-gone.md"
    stale.parent.mkdir(parents=True, exist_ok=True)
    stale.write_text("of a domain that an earlier answer had")
    assert "2 of 4 cells" in lowdata(folder, "partial").stdout
    assert not stale.exists()
    assert len(lowdata(folder, "pack").stdout.splitlines()) == 2
    return folder


@pytest.fixture
def elsewhere(left: Path, tmp_path: Path) -> Path:
    """A fresh clone of it: what git keeps, and the raw data."""
    folder = tiny_study(tmp_path / "p", **SETTINGS)
    shutil.copytree(left / "results/quick/finished", folder / "results/quick/finished")
    return folder


def test_the_answer_so_far_is_of_the_finished_cells(left: Path) -> None:
    assert set(pd.read_csv(left / "results/quick/scores.csv")["method"]) == {"base", "diet_cp"}
    for name in ("claims.json", "tables/answer.md", "figures/answer.png", "report.html"):
        assert (left / "results/quick" / name).exists(), name
    assert planned(left)["pretrain"] == 2


def test_a_run_goes_on_from_packed_cells(left: Path, elsewhere: Path) -> None:
    assert planned(elsewhere)["pretrain"] == 4
    assert "2 of 4 cells restored" in lowdata(elsewhere, "restore").stdout
    assert {rule: planned(elsewhere)[rule] for rule in ("pretrain", "evaluate")} == {"pretrain": 2, "evaluate": 2}
    snakemake(elsewhere)
    scores = pd.read_csv(elsewhere / "results/quick/scores.csv")
    assert set(scores["method"]) == {"base", "base_domain_norm", "diet_cp", "mae"}
    before = pd.read_csv(left / "results/quick/scores.csv")
    again = scores[scores["method"].isin(["base", "diet_cp"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, before)
    assert planned(elsewhere) == {}


def test_the_answer_so_far_does_not_need_the_examples_of_restored_cells(left: Path, elsewhere: Path) -> None:
    lowdata(elsewhere, "restore")
    (elsewhere / f"{CELLS}/diet_cp/n4/s0/examples.npz").unlink()
    drawn, published = (folder / "results/quick/figures/segmentation-tiny-camvid.png" for folder in (elsewhere, left))
    drawn.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(published.with_stem("answer"), drawn)  # which no drawing of the sheet would give
    assert "2 of 4 cells" in lowdata(elsewhere, "partial").stdout
    assert drawn.read_bytes() == published.with_stem("answer").read_bytes()
    answer = "results/quick/tables/answer.md"
    assert (elsewhere / answer).read_bytes() == (left / answer).read_bytes()
    lowdata(elsewhere, "pack")
    archives = "results/quick/finished"
    for archive in sorted((left / archives).iterdir()):
        assert (elsewhere / archives / archive.name).read_bytes() == archive.read_bytes()


def test_a_later_change_of_a_restored_cell_is_noticed(elsewhere: Path) -> None:
    lowdata(elsewhere, "restore")
    write_config(elsewhere, **SETTINGS | RATE)
    assert planned(elsewhere)["pretrain"] == 3


def test_cells_of_another_configuration_are_not_restored(elsewhere: Path) -> None:
    write_config(elsewhere, **SETTINGS | RATE)
    said = lowdata(elsewhere, "restore").stdout
    assert "diet_cp/n4/s0: made with another method.optimiser.lr" in said
    assert "1 of 4 cells restored" in said


def test_a_damaged_archive_is_named(elsewhere: Path) -> None:
    archive = next((elsewhere / "results/quick/finished").glob("*diet_cp.zip"))
    content = bytearray(archive.read_bytes())
    content[200] ^= 1
    archive.write_bytes(content)
    said = lowdata(elsewhere, "restore", fails=True).stderr
    assert archive.name in said
    assert "Traceback" not in said
