"""What `make verify` makes again of a language study: tables from the cells, then intervals, verdicts and figures."""

from __future__ import annotations

import shutil
from pathlib import Path

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.language import figures, results
from lowdata_cpt.language.plan import Paths, base_of, cells
from lowdata_cpt.reproduce.rows import Row, compare, compare_scores, not_here

READ = ("study.json", "scores.csv", "curves.csv", "value.csv", "outcomes.npz")
"""What the report is made from."""
MADE = ("statistics.csv", "designer.csv", "claims.json", "claims.md")


def check_scores(folder: Path, work: Path) -> list[Row]:
    """Collect the study's tables from its cells once more."""
    study, paths = results.read_study(folder), Paths(folder)
    every = [paths.cell(cell) for cell in (*map(base_of, study.learners), *cells(study))]
    if missing := [cell / "evaluation.json" for cell in every if not (cell / "evaluation.json").exists()]:
        return not_here("scores", missing, "the cells that scores.csv is collected from")
    results.collect(study, paths, work)
    tables = [compare("scores", folder / name, work / name) for name in ("curves.csv", "value.csv")]
    return [compare_scores(folder / "scores.csv", work / "scores.csv"), *tables]


def check_report(folder: Path, work: Path) -> list[Row]:
    """Compute intervals and verdicts, and draw the figures, from the published tables once more."""
    again = work / "report"  # beside the tables that were collected again: their records are of other files
    again.mkdir()
    for name in READ:
        if not (folder / name).exists():
            raise UserError(f"{folder / name}: missing; run `git checkout` on it")
        shutil.copy(folder / name, again / name)
    figures.report(again)
    drawn = [f"figures/{name}.csv" for name in figures.FIGURES]
    return [compare("report", folder / name, again / name) for name in (*MADE, *drawn)]
