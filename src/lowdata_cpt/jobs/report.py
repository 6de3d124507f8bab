"""Stages that only read tables: statistics, claims, figures, report, headline. They run without torch."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lowdata_cpt.analysis.claims import verdicts_markdown
from lowdata_cpt.analysis.commands import make_claims, make_figures, make_statistics, read_results
from lowdata_cpt.analysis.metrics import write_metrics
from lowdata_cpt.analysis.report import build_report
from lowdata_cpt.analysis.table import read_scores
from lowdata_cpt.analysis.tables import headline as headline_table
from lowdata_cpt.analysis.tables import write_tables
from lowdata_cpt.core.io import write_text
from lowdata_cpt.core.provenance import write_sidecar

CLAIMS = Path("config/claims.yaml")
SUBMITTED = Path(".snakemake/submitit/ledger")


def statistics(folder: Path) -> None:
    """Write results/<study>/statistics/."""
    make_statistics(folder / "scores.csv", folder / "statistics")
    write_metrics(folder / "scores.csv", folder / "statistics" / "metrics.json")


def claims(folder: Path) -> None:
    """Write results/<study>/claims.json and claims.md."""
    make_claims(folder / "scores.csv", CLAIMS, folder, folder.name)
    write_sidecar(folder / "claims.json", inputs=[folder / "scores.csv", CLAIMS])


def figures(folder: Path, workers: int = 1) -> None:
    """Write results/<study>/figures/ and tables/, each figure with its source table, caption and sidecar."""
    drawn = make_figures(folder, folder / "figures", workers=workers)
    write_tables(read_scores(folder / "scores.csv"), folder / "tables")
    if (folder / "claims.json").exists():
        write_text(folder / "tables" / "verdicts.md", verdicts_markdown(read_results(folder / "claims.json")) + "\n")
    for figure, sources in drawn.items():
        if figure.suffix == ".png":
            write_sidecar(figure, inputs=list(sources))


def ledger(folder: Path, lines: Path = SUBMITTED) -> None:
    """Write results/<study>/ledger.csv, what SLURM has spent on the study, where anything was submitted.

    One row for each rule and method: starts, CPU- and GPU-hours, and how many of them failed or were requeued.
    """
    if not lines.is_dir():
        return
    from snakemake_executor_plugin_submitit import ledger as submitted

    own = [line for line in submitted.read(lines) if any(f"{folder}/" in out for out in line.get("outputs", ()))]
    totals = submitted.summarise(own, by=("rule", "method"))
    rows = [{"rule": rule, "method": method} | total for (rule, method), total in totals.items()]
    if rows:
        write_text(folder / "ledger.csv", pd.DataFrame(rows).round(5).to_csv(index=False, lineterminator="\n"))


def report(folder: Path) -> None:
    """Write results/<study>/report.html, and ledger.csv if the study's jobs were submitted."""
    ledger(folder)
    build_report(folder, folder / "report.html")


def headline(folder: Path) -> None:
    """Print the headline table and where the figures are; without any labels, where the models are."""
    if not (folder / "scores.csv").exists() and (folder / "cells").is_dir():
        print(f"no domain has labels, so nothing was scored\nmodels:  {folder / 'cells'}/**/export/model.safetensors")
        return
    print(headline_table(read_scores(folder / "scores.csv")).to_string(index=False))
    print(f"\nfigures: {folder / 'figures'}\nreport:  {folder / 'report.html'}")
