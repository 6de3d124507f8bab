"""What the command line and the workflow call: statistics, claims, figures, from files to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from lowdata_cpt.analysis.answer import answer_of
from lowdata_cpt.analysis.claims import Evidence, judge_all, write_claims
from lowdata_cpt.analysis.claims_file import read_claims
from lowdata_cpt.analysis.measure import CELL
from lowdata_cpt.analysis.outcomes import read_outcomes
from lowdata_cpt.analysis.stopping import stopped_gain
from lowdata_cpt.analysis.study_files import StudyFiles, read_absent, read_before, read_checks, read_waiting
from lowdata_cpt.analysis.summary import (
    by_domain,
    cell_statistics,
    gain_curve,
    loss_table,
    rank_table,
    selection_table,
    summary,
)
from lowdata_cpt.analysis.table import SELECTED_COLUMNS, at_end, held_out, read_curves, read_scores, read_table
from lowdata_cpt.analysis.tables import write_tables
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import write_json, write_text


def make_statistics(scores: Path, out_dir: Path) -> list[Path]:
    """Write `cells, domains, summary, curve, stopped, ranks` as CSV into `out_dir`, and the mean scores, metrics.json.

    From what lies beside the table: with `outcomes/` intervals cover test images too; with `curves.csv` there are
    `losses.csv` (where each part of a loss began, ended, and was lowest) and `preconditions.csv` (which methods acted,
    and how much of their sources' runs they had); with `selected.csv` a table of that name: where in their grids the
    probes' choices lie.

    Raises:
        UserError: as `read_scores`; or a trained row lacks its base; or a file beside the table is wrong.
    """
    table, outcomes, before = read_scores(scores), read_outcomes(scores.parent), read_before(scores.parent)
    written = {
        "cells": cell_statistics(table, outcomes),
        "domains": by_domain(table, outcomes),
        "summary": summary(table, outcomes),
        "curve": gain_curve(table, outcomes=outcomes, before=before),
        "stopped": stopped_gain(table, outcomes, before),
        "ranks": rank_table(table),
    }
    curves = scores.with_name("curves.csv")
    if curves.exists():
        written["losses"] = loss_table(read_curves(curves))
        written["preconditions"] = read_checks(scores.parent)
    selected = scores.with_name("selected.csv")
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


def make_claims(scores: Path, claims: Path, out_dir: Path, study: str) -> list[Path]:
    """Judge every claim of `claims` on `study`'s rows; write `claims.json` and `claims.md` into `out_dir`.

    Reads `outcomes/`, `curves.csv`, `study.json`, `cost.csv` and `not_run.json` beside the table, where they are.

    Raises:
        UserError: as `read_scores`, `read_claims`, `read_checks` and `read_absent`; or the table has no row of `study`.
    """
    table = read_scores(scores)
    rows = table[table["study"] == study].reset_index(drop=True)
    if rows.empty:
        names = ", ".join(sorted(table["study"].unique()))
        raise UserError(f"{scores}: no row of study {study}, the table has {names}")
    stated, folder = read_claims(claims), scores.parent
    evidence = Evidence(
        rows,
        read_outcomes(folder),
        read_checks(folder),
        head_room=stated.head_room,
        absent=read_absent(folder),
        waiting=read_waiting(folder),
    )
    return write_claims(judge_all(stated, evidence), out_dir, study)


def make_tables(study_dir: Path, out_dir: Path) -> list[Path]:
    """Write the tables of a study's folder into `out_dir`: as `write_tables`, with what lies beside `scores.csv`.

    And sentences.md: the answer in words, how sure it is, and what is not known.

    Raises:
        UserError: as `read_scores`, `read_checks` and `read_results`.
    """
    files = StudyFiles(study_dir)
    answer, words = answer_of(files), out_dir / "sentences.md"
    # First what needs the scores: without them nothing is written.
    written = write_tables(files.scores, out_dir, files.outcomes, files.checks, files.claims, files.before)
    text = [*answer.sentences, f"*How sure:* {answer.how_sure}", f"*Not known:* {answer.not_known}"]
    write_text(words, "\n\n".join(text) + "\n")
    return [words, *written]
