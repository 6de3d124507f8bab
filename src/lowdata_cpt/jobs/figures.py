"""A study's figures: their names from its configuration, and one job for each. Importing this draws nothing."""

from __future__ import annotations

from pathlib import Path

from lowdata_cpt.analysis import figures
from lowdata_cpt.core.provenance import write_sidecar
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.grid import cells, diagnosed, pairs

FACTS = ("methods.facts", "methods.registry")
"""What methods say of themselves: labels, colours, and when one acted."""


def figure_names(study: Study) -> list[str]:
    """Return the names of a study's figures, main figures first."""
    trained = [cell for cell in cells(study) if cell.n]
    sizes = {cell.domain: {other.n for other in trained if other.domain == cell.domain} for cell in trained}
    return figures.figure_names(
        figures.StudyFacts(
            labels={(backbone, domain): study.domains[domain].tasks() for backbone, domain in pairs(study)},
            diagnosed={(c.backbone, c.domain, c.method): study.methods[c.method].method for c in diagnosed(study)},
            trained=bool(trained),
            several_sizes=any(len(found) > 1 for found in sizes.values()),
        )
    )


def code_modules(name: str) -> tuple[str, ...]:
    """Return the modules that decide a figure, for its code version."""
    return (f"analysis.figures.{figures.parse_figure(name)[0].module}", *FACTS)


def figure(folder: Path, name: str, *, pdf: bool = False) -> None:
    """Draw one figure into `figures/` of a study's folder, with source table, caption and sidecar."""
    picture = figures.draw(name, folder, folder / "figures", pdf=pdf)[0]
    inputs = [folder / path for path in figures.figure_reads(name)]
    write_sidecar(picture, inputs=[path for path in inputs if path.is_file()])
