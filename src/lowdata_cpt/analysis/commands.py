"""What the command line and the workflow call: statistics, claims, figures, from files to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from lowdata_cpt.analysis.answer import answer_of
from lowdata_cpt.analysis.claims import Evidence, judge_all, write_claims
from lowdata_cpt.analysis.claims_file import read_claims
from lowdata_cpt.analysis.measure import CELL
from lowdata_cpt.analysis.stopping import stopped_gain
from lowdata_cpt.analysis.study_files import StudyFiles
from lowdata_cpt.analysis.summary import (
    by_domain,
    cell_statistics,
    gain_curve,
    loss_table,
    rank_table,
    selection_table,
    summary,
)
from lowdata_cpt.analysis.table import SELECTED_COLUMNS, at_end, held_out, read_table
from lowdata_cpt.analysis.tables import write_tables
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import write_json, write_text


def make_statistics(study_dir: Path, out_dir: Path) -> list[Path]:
    """Write `cells, domains, summary, curve, stopped, ranks` as CSV into `out_dir`, and the mean scores, metrics.json.

    From `scores.csv` and what lies beside it: with `outcomes/` intervals cover test images too; with `curves.csv` there
    are `losses.csv` (where each part of a loss began, ended, and was lowest) and `preconditions.csv` (which methods
    acted, and how much of their sources' runs they had); with `selected.csv` a table of that name: where in their grids
    the probes' choices lie.

    Raises:
        UserError: as `read_scores`; or a trained row lacks its base; or a file beside the table is wrong.
    """
    files = StudyFiles(study_dir)
    table, outcomes, before = files.scores, files.outcomes, files.before
    written = {
        "cells": cell_statistics(table, outcomes),
        "domains": by_domain(table, outcomes),
        "summary": summary(table, outcomes),
        "curve": gain_curve(table, outcomes=outcomes, before=before),
        "stopped": stopped_gain(table, outcomes, before),
        "ranks": rank_table(table),
    }
    if (study_dir / "curves.csv").exists():
        written["losses"] = loss_table(files.curves)
        written["preconditions"] = files.checks
    selected = study_dir / "selected.csv"
    if selected.exists():
        written["selected"] = selection_table(read_table(selected, SELECTED_COLUMNS))
    for name, frame in written.items():
        write_text(out_dir / f"{name}.csv", frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    write_json(out_dir / "metrics.json", mean_scores(table))
    return [*(out_dir / f"{name}.csv" for name in written), out_dir / "metrics.json"]


def mean_scores(table: pd.DataFrame) -> dict[str, Any]:
    """Return backbone -> domain -> method -> n -> task.metric -> mean over seeds on the test split, at the end of runs.

    One small file, for `dvc metrics show` and `dvc metrics diff`.
    """
    means: dict[str, Any] = {}
    for key, value in at_end(held_out(table)).groupby(CELL)["value"].mean().items():
        assert isinstance(key, tuple), "one key of every level"
        backbone, domain, method, n, task, metric = key
        inner = means.setdefault(backbone, {}).setdefault(domain, {}).setdefault(method, {}).setdefault(f"n{n}", {})
        inner[f"{task}.{metric}"] = round(float(value), 6)
    return means


def make_claims(study_dir: Path, claims: Path, out_dir: Path, study: str) -> list[Path]:
    """Judge every claim of `claims` on `study`'s rows; write `claims.json` and `claims.md` into `out_dir`.

    Reads `scores.csv`, and beside it, where they are, `outcomes/`, `curves.csv`, `study.json`, `cost.csv` and
    `not_run.json`.

    Raises:
        UserError: as `read_claims`; or a file of the study is wrong, or its table has no row of `study`.
    """
    files = StudyFiles(study_dir)
    table = files.scores
    rows = table[table["study"] == study].reset_index(drop=True)
    if rows.empty:
        names = ", ".join(sorted(table["study"].unique()))
        raise UserError(f"{study_dir / 'scores.csv'}: no row of study {study}, the table has {names}")
    stated = read_claims(claims)
    evidence = Evidence(rows, files.outcomes, files.checks, stated.head_room, files.absent, files.waiting)
    return write_claims(judge_all(stated, evidence), out_dir, study)


def make_tables(study_dir: Path, out_dir: Path) -> list[Path]:
    """Write the tables of a study's folder into `out_dir`: as `write_tables`, with what lies beside `scores.csv`.

    And sentences.md: the answer in words, how sure it is, and what is not known.

    Raises:
        UserError: a file is wrong.
    """
    files = StudyFiles(study_dir)
    answer, words = answer_of(files), out_dir / "sentences.md"
    # First what needs the scores: without them nothing is written.
    written = write_tables(files.scores, out_dir, files.outcomes, files.checks, files.claims, files.before)
    text = [*answer.sentences, f"*How sure:* {answer.how_sure}", f"*Not known:* {answer.not_known}"]
    write_text(words, "\n\n".join(text) + "\n")
    return [words, *written]
