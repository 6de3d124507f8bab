"""What the command line and the workflow call: statistics, claims, figures, from files to files."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from lowdata_cpt.analysis.claims import Evidence, Result, judge_all, write_claims
from lowdata_cpt.analysis.claims_file import read_claims
from lowdata_cpt.analysis.figures.claims import draw_claims
from lowdata_cpt.analysis.figures.cost import draw_cost
from lowdata_cpt.analysis.figures.curves import draw_curves
from lowdata_cpt.analysis.figures.gain import draw_gain_by_n, draw_gain_summary
from lowdata_cpt.analysis.figures.improvement import GROUPS, draw_improvement
from lowdata_cpt.analysis.figures.inside import draw_inside, draw_neighbours
from lowdata_cpt.analysis.figures.qualitative import draw_qualitative
from lowdata_cpt.analysis.figures.tradeoff import draw_tradeoff
from lowdata_cpt.analysis.outcomes import read_outcomes
from lowdata_cpt.analysis.preconditions import check_preconditions
from lowdata_cpt.analysis.summary import (
    by_domain,
    cell_statistics,
    gain_curve,
    improvement,
    loss_table,
    rank_table,
    selection_table,
    summary,
)
from lowdata_cpt.analysis.table import COST_COLUMNS, SELECTED_COLUMNS, read_curves, read_scores, read_table
from lowdata_cpt.analysis.tables import write_tables
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json, write_text


def make_statistics(scores: Path, out_dir: Path) -> list[Path]:
    """Write `cells, domains, summary, curve, improvement, ranks` as CSV into `out_dir`.

    From what lies beside the table: with `outcomes/` intervals cover test images too; with `curves.csv` there are
    `losses.csv` (where each part of a loss began, ended, and was lowest) and `preconditions.csv` (which methods acted,
    and how much of their sources' runs they had); with `selected.csv` a table of that name: where in their grids the
    probes' choices lie.

    Raises:
        UserError: as `read_scores`; or a trained row lacks its base; or a file beside the table is wrong.
    """
    table, outcomes = read_scores(scores), read_outcomes(scores.parent)
    written = {
        "cells": cell_statistics(table, outcomes),
        "domains": by_domain(table, outcomes),
        "summary": summary(table, outcomes),
        "curve": gain_curve(table),
        "improvement": improvement(table, GROUPS),
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
    return [out_dir / f"{name}.csv" for name in written]


def read_checks(study_dir: Path) -> pd.DataFrame:
    """Return `check_preconditions` of a study's `curves.csv`, `study.json` and `cost.csv`; empty without curves.

    Raises:
        UserError: one of the files is wrong.
    """
    files = {name: study_dir / name for name in ("curves.csv", "study.json", "cost.csv")}
    if not files["curves.csv"].exists():
        return pd.DataFrame()
    study = read_json(files["study.json"]) if files["study.json"].exists() else None
    cost = read_table(files["cost.csv"], (*COST_COLUMNS, "steps")) if files["cost.csv"].exists() else None
    return check_preconditions(read_curves(files["curves.csv"]), study, cost)


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
        rows, read_outcomes(folder), read_checks(folder), head_room=stated.head_room, absent=read_absent(folder)
    )
    return write_claims(judge_all(stated, evidence), out_dir, study)


def make_tables(study_dir: Path, out_dir: Path) -> list[Path]:
    """Write the tables of a study's folder into `out_dir`: as `write_tables`, with what lies beside `scores.csv`.

    Raises:
        UserError: as `read_scores`, `read_checks` and `read_results`.
    """
    claims = study_dir / "claims.json"
    results = read_results(claims) if claims.exists() else []
    scores = read_scores(study_dir / "scores.csv")
    return write_tables(scores, out_dir, read_outcomes(study_dir), read_checks(study_dir), results)


def read_absent(study_dir: Path) -> dict[str, str]:
    """Return the domains that were left out because their data was not on the machine, with the reason.

    Raises:
        UserError: `not_run.json` is there, but no mapping of names to reasons.
    """
    path = study_dir / "not_run.json"
    found = read_json(path) if path.exists() else {}
    if not isinstance(found, dict) or not all(isinstance(reason, str) for reason in found.values()):
        raise UserError(f"{path}: expected a mapping of domains to reasons")
    return found


def read_results(path: Path) -> list[Result]:
    """Read `claims.json`.

    Raises:
        UserError: not a list of judged claims.
    """
    found = read_json(path)
    try:
        return [Result.model_validate(one) for one in found]
    except (TypeError, ValueError):
        raise UserError(f"{path}: expected a list of judged claims, as `make_claims` writes it") from None


def make_figures(study_dir: Path, out_dir: Path, workers: int = 1) -> dict[Path, list[Path]]:
    """Draw every figure that the study's files allow: `scores.csv` is required, all others are optional.

    Reads `curves.csv`, `cost.csv`, `claims.json`, `qualitative/*.npz` beside it where present.

    Args:
        study_dir: folder of the study's results.
        out_dir: folder to write to.
        workers: number of processes that draw.

    Returns:
        The files written, each with the files it was drawn from.

    Raises:
        UserError: a file is present but wrong.
    """
    files = {name: study_dir / name for name in ("scores.csv", "cost.csv", "curves.csv", "claims.json")}
    table = files["scores.csv"]
    scores = read_scores(table)
    cost = read_table(files["cost.csv"], COST_COLUMNS) if files["cost.csv"].exists() else None
    # What each figure is drawn from, the function that draws it, its arguments.
    jobs: list[tuple[list[Path], Callable[..., list[Path]], tuple[Any, ...]]] = [
        ([table], draw_gain_by_n, (scores, out_dir)),
        ([table], draw_gain_summary, (scores, out_dir)),
        ([table], draw_improvement, (scores, out_dir)),
        ([table] if cost is None else [table, files["cost.csv"]], draw_cost, (scores, out_dir, cost)),
        ([table], draw_tradeoff, (scores, out_dir)),
    ]
    if files["claims.json"].exists():
        jobs.append(([files["claims.json"]], draw_claims, (read_results(files["claims.json"]), out_dir)))
    if files["curves.csv"].exists():
        curves = read_curves(files["curves.csv"])
        jobs += [
            ([files["curves.csv"]], draw_curves, (part, out_dir)) for _, part in curves.groupby(["backbone", "domain"])
        ]
    for path in sorted((study_dir / "qualitative").glob("*.npz")):
        inside = path.name.startswith("inside-")
        draws = (draw_inside,) if inside else (draw_qualitative, draw_neighbours)
        jobs += [([path], draw, (path, out_dir)) for draw in draws]
    if workers == 1:
        return {path: sources for sources, draw, arguments in jobs for path in draw(*arguments)}
    # Spawned, not forked: the caller may hold threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [(sources, pool.submit(draw, *arguments)) for sources, draw, arguments in jobs]
        return {path: sources for sources, future in futures for path in future.result()}
