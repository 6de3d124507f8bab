"""The results in git: every cell of the grid that study.json names is in the table, once, with all its metrics."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lowdata_cpt.analysis.commands import make_tables
from lowdata_cpt.analysis.table import METRICS, read_scores
from lowdata_cpt.core.io import read_json
from lowdata_cpt.jobs.collect import read_study
from lowdata_cpt.language import plan
from lowdata_cpt.language import results as language
from lowdata_cpt.language.config import is_language
from lowdata_cpt.study.grid import Cell, cells, only
from lowdata_cpt.study.job_params import dump, study_params
from lowdata_cpt.study.load import load

RESULTS = Path(__file__).resolve().parents[2] / "results"
STUDIES = sorted(path.parent.name for path in RESULTS.glob("*/study.json") if not is_language(read_json(path)))
LANGUAGE = sorted({path.parent.name for path in RESULTS.glob("*/study.json")} - set(STUDIES))
KEY = list(Cell._fields)


def check(folder: Path) -> None:
    """Assert that a study's table is its whole grid."""
    table = read_scores(folder / "scores.csv")
    assert table["value"].notna().all()
    assert set(table[KEY].itertuples(index=False, name=None)) == set(cells(read_study(folder / "study.json")))
    assert not table.duplicated([*KEY, "images_seen", "task", "metric", "split"]).any()
    # A bank of the drawn images is reported by trained cells alone.
    shared = table[~table["metric"].isin([name for name, metric in METRICS.items() if metric.drawn])]
    measured = shared.groupby(KEY)[["task", "metric", "split"]].apply(lambda rows: frozenset(map(tuple, rows.values)))
    for domain, found in measured.groupby("domain"):
        assert found.nunique() == 1, f"{domain}: some cells lack metrics that others have"
        assert {split for _, _, split in found.iloc[0]} == {"val", "test"}, domain


@pytest.mark.parametrize("study", STUDIES)
def test_table_holds_the_whole_grid(study: str) -> None:
    check(RESULTS / study)


@pytest.mark.parametrize("study", STUDIES)
def test_results_are_of_the_configuration_in_git(study: str) -> None:
    config = RESULTS.parent / "config" / f"{study}.yaml"
    # Of a study that is not finished the table holds some cells, and study.json those.
    part = only(load(config), set(cells(read_study(RESULTS / study / "study.json"))))
    assert read_json(RESULTS / study / "study.json") == json.loads(dump(study_params(part)))


@pytest.mark.parametrize("study", STUDIES)
def test_the_tables_are_what_the_code_makes_of_the_scores(study: str, tmp_path: Path) -> None:
    again = make_tables(RESULTS / study, tmp_path)
    assert again
    for path in again:
        assert (RESULTS / study / "tables" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("study", LANGUAGE)
def test_a_language_table_holds_the_whole_grid(study: str) -> None:
    of = language.read_study(RESULTS / study)
    table = language.read_scores(RESULTS / study)
    wanted = {*map(plan.base_of, of.learners), *plan.cells(of)}
    assert set(table[language.KEY].itertuples(index=False, name=None)) == wanted
    assert not table.duplicated([*language.KEY, "tokens_seen", "metric"]).any()
    assert table.groupby([*language.KEY, "tokens_seen"])["metric"].agg(set).map(set(language.METRICS).__eq__).all()


@pytest.mark.parametrize("study", [*STUDIES, *LANGUAGE])
def test_files_in_git_stay_small(study: str) -> None:
    carried = ("backbones", "cells", "data", "qualitative", "logs")  # by DVC, or by nobody
    files = [path for path in (RESULTS / study).rglob("*") if path.relative_to(RESULTS / study).parts[0] not in carried]
    assert {
        path.name: path.stat().st_size for path in files if path.is_file() and path.stat().st_size >= 2 * 2**20
    } == {}


@pytest.mark.parametrize("text", ["README.md", "docs/findings.md", "docs/language.md"])
def test_every_gain_in_the_texts_is_a_row_of_a_table(text: str) -> None:
    names = ("summary", "domains", "stopped")
    tables = [pd.read_csv(path) for name in names for path in RESULTS.glob(f"*/statistics/{name}.csv")]
    found = [table[["mean", "ci_low", "ci_high"]] for table in tables]
    found += [pd.read_csv(RESULTS / name / "statistics.csv")[["gain", "low", "high"]] for name in LANGUAGE]
    rows = np.concatenate([table.to_numpy(float) for table in found])
    page = re.sub(r"\s+", " ", (RESULTS.parent / text).read_text())
    shown = r"[+−]\d+\.\d\d \[[+−]\d+\.\d\d, [+−]\d+\.\d\d\]"
    gains = re.findall(rf"{shown}(?!, commit)", page)  # a commit's table is in its commit
    assert gains
    for gain in gains:
        # The tables have six digits: the last one of a text may be rounded the other way.
        numbers = [float(number.replace("−", "-")) for number in re.findall(r"[+−]\d+\.\d\d", gain)]
        assert np.abs(rows - numbers).max(axis=1).min() < 0.0051, gain


@pytest.mark.parametrize("lost", ["method == 'tec'", "method == 'tec' and metric == 'miou'"])
def test_what_is_lost_is_seen(lost: str, tmp_path: Path) -> None:
    shutil.copy(RESULTS / "quick/study.json", tmp_path)
    table = pd.read_csv(RESULTS / "quick/scores.csv")
    table.drop(table.query(lost).index).to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(AssertionError):
        check(tmp_path)
