"""Stages that only read tables: statistics, claims, figures, report, headline. They run without torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from lowdata_cpt.analysis.answer import answer_of
from lowdata_cpt.analysis.commands import make_claims, make_statistics, make_tables
from lowdata_cpt.analysis.figures import missing_inputs
from lowdata_cpt.analysis.report import build_report
from lowdata_cpt.analysis.study_files import StudyFiles
from lowdata_cpt.analysis.tables import headline as headline_table
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import write_text
from lowdata_cpt.core.paths import CLAIMS, project_file
from lowdata_cpt.core.provenance import write_sidecar
from lowdata_cpt.jobs.collect import read_study
from lowdata_cpt.jobs.figures import figure, figure_names
from lowdata_cpt.study.grid import pairs

SUBMITTED = Path(".snakemake/submitit/ledger")


def statistics(folder: Path) -> None:
    """Write results/<study>/statistics/."""
    make_statistics(folder, folder / "statistics")


def claims(folder: Path) -> None:
    """Write results/<study>/claims.json and claims.md."""
    asked = project_file(CLAIMS)
    make_claims(folder, asked, folder, folder.name)
    write_sidecar(folder / "claims.json", inputs=[folder / "scores.csv", asked])


def tables(folder: Path) -> None:
    """Write results/<study>/tables/."""
    make_tables(folder, folder / "tables")


def figures(folder: Path, names: Sequence[str] = (), *, pdf: bool = False, workers: int = 1) -> None:
    """Draw figures into results/<study>/figures/, in `workers` processes: those named, or all whose inputs are here."""
    if not names:
        wanted = {name: missing_inputs(name, folder) for name in figure_names(read_study(folder / "study.json"))}
        names = [name for name, missing in wanted.items() if not missing]
        for path in sorted({path for missing in wanted.values() for path in missing}):
            print(f"{folder / path}: not here; the figures of it are left out", file=sys.stderr)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for drawn in [pool.submit(figure, folder, name, pdf=pdf) for name in names]:
            drawn.result()


def ledger(folder: Path) -> None:
    """Write results/<study>/ledger.csv, what SLURM has spent on the study, where anything was submitted.

    One row for each rule and method: starts, CPU- and GPU-hours, and how many of them failed or were requeued.
    """
    if not SUBMITTED.is_dir():
        return
    from snakemake_executor_plugin_submitit import ledger as submitted

    own = [line for line in submitted.read(SUBMITTED) if any(f"{folder}/" in out for out in line.get("outputs", ()))]
    totals = submitted.summarise(own, by=("rule", "method"))
    rows = [{"rule": rule, "method": method} | total for (rule, method), total in totals.items()]
    if rows:
        write_text(folder / "ledger.csv", pd.DataFrame(rows).round(5).to_csv(index=False, lineterminator="\n"))


def report(folder: Path) -> None:
    """Write results/<study>/report.html, and ledger.csv if the study's jobs were submitted.

    Of a collected study without any labels, first the geometry of its features, losses and neighbours: with torch.
    """
    _check_folder(folder)
    names = None
    if (folder / "study.json").exists():
        if (folder / "scores.csv").exists():
            names = figure_names(read_study(folder / "study.json"))
        else:
            _unlabelled(folder)
    ledger(folder)
    build_report(folder, folder / "report.html", names)


def _unlabelled(folder: Path) -> None:
    from lowdata_cpt.jobs.geometry import geometry

    geometry(folder)
    for backbone, domain in pairs(read_study(folder / "study.json")):
        for kind in ("loss", "neighbours"):
            figure(folder, f"{kind}-{backbone}-{domain}")


def _check_folder(folder: Path) -> None:
    if not any((folder / name).exists() for name in ("scores.csv", "study.json")):
        raise UserError(
            f"{folder}: holds no scores.csv; expected results/<study> of a study that has run (of one that has not "
            "ended, `make partial STUDY=<study>` gathers what is finished)"
        )


def headline(folder: Path) -> None:
    """Print the answer, the headline table and where the report is; without any labels, where the models are."""
    _check_folder(folder)
    files = StudyFiles(folder)
    answer = answer_of(files)
    print("\n".join(answer.sentences))
    if not (folder / "scores.csv").exists():
        print(f"\nmodels:  {folder / 'cells'}/**/export/*/model.safetensors")
        return
    print(f"\n{answer.how_sure}\n\n{headline_table(files.scores).to_string(index=False)}")
    print(f"\nfigures: {folder / 'figures'}\nreport:  {folder / 'report.html'}")
