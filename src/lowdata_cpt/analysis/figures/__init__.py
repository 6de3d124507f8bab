"""The figures, in one table: which function draws each, and what it reads. Importing this draws nothing.

A figure's name is a key of FIGURES, for a figure of one place followed by `-<backbone>-<domain>`, and for a look inside
a method also by `-<method>`. Names follow from a study's configuration (`figure_names`), never from its results.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lowdata_cpt.core.errors import UserError

ANALYSIS = "lowdata_cpt.analysis.figures"
EXAMPLES = "qualitative/examples-{0}-{1}.npz"
DIAGNOSTICS = "qualitative/diagnostics-{0}-{1}-{2}.npz"


@dataclass(frozen=True)
class Figure:
    """How a figure is drawn.

    Attributes:
        module: below `analysis.figures`; its code and what it imports decide the figure.
        function: in it, called with a `StudyFiles` and the place of the name; returns a `Drawing`.
        reads: what it is drawn from, below the study's folder; {0}, {1}, {2} are backbone, domain, method.
        needs: the label of a domain that it needs, or the method whose inside it shows.
    """

    module: str
    function: str
    reads: tuple[str, ...]
    needs: str = ""

    @property
    def depth(self) -> int:
        """The number of parts that follow the kind in a figure's name."""
        return 3 if DIAGNOSTICS in self.reads else 2 if any("{1}" in path for path in (*self.reads, self.needs)) else 0


_LOGS = ("curves.csv", "study.json", "cost.csv")
FIGURES = {
    "answer": Figure("answer", "draw_answer", ("scores.csv", "outcomes", *_LOGS)),
    "learning": Figure("learning", "draw_learning", ("scores.csv", *_LOGS)),
    "learning_seconds": Figure("learning", "draw_learning_seconds", ("scores.csv", *_LOGS)),
    "gains": Figure("gains", "draw_gains", ("scores.csv", "outcomes", *_LOGS)),
    "gains_over_reference": Figure("gains", "draw_gains_over_reference", ("scores.csv", "outcomes", *_LOGS)),
    "gain_by_n": Figure("gain_by_n", "draw_gain_by_n", ("scores.csv",)),
    "claims": Figure("claims", "draw_claims", ("claims.json",)),
    "loss": Figure("loss", "draw_loss", _LOGS, needs="{0}-{1}"),
    "segmentation": Figure("qualitative", "draw_segmentation", (EXAMPLES,), needs="segmentation"),
    "depth": Figure("qualitative", "draw_depth", (EXAMPLES,), needs="depth"),
    "neighbours": Figure("inside", "draw_neighbours", (EXAMPLES,), needs="classification"),
    "masks": Figure("inside", "draw_masks", (DIAGNOSTICS,), needs="v_pretraining"),
    "value": Figure("inside", "draw_value", (DIAGNOSTICS,), needs="v_pretraining"),
    "regions": Figure("inside", "draw_regions", (DIAGNOSTICS,), needs="glare"),
}


@dataclass(frozen=True)
class StudyFacts:
    """What a study's configuration says of its figures.

    Attributes:
        labels: (backbone, domain) → the labels that the domain has.
        diagnosed: (backbone, domain, method) that are looked into → the kind of method.
        trained: whether any method is trained.
        several_sizes: whether a domain has more than one number of images.
    """

    labels: Mapping[tuple[str, str], Sequence[str]]
    diagnosed: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    trained: bool = True
    several_sizes: bool = True


def figure_names(facts: StudyFacts) -> list[str]:
    """Return the names of a study's figures, main figures first; known before anything was computed."""
    scored = any(facts.labels.values())
    names = []
    for kind, figure in FIGURES.items():
        if figure.depth == 0:
            wanted = facts.trained and scored and (kind != "gain_by_n" or facts.several_sizes)
            names += [kind] if wanted else []
        elif figure.depth == 2:
            anywhere = kind == "loss" and facts.trained and scored
            found = [place for place, labels in facts.labels.items() if anywhere or figure.needs in labels]
            names += ["-".join((kind, *place)) for place in found]
        else:
            names += ["-".join((kind, *p)) for p, method in facts.diagnosed.items() if method == figure.needs]
    return names


def parse_figure(name: str) -> tuple[Figure, list[str]]:
    """Return how a figure is drawn, and its place: backbone, domain, method, as far as its name has them.

    Raises:
        UserError: no figure has that name.
    """
    kind, *place = name.split("-")
    if kind not in FIGURES or len(place) != FIGURES[kind].depth:
        raise UserError(f"figure {name!r}: expected one of {', '.join(FIGURES)}, with its -backbone-domain(-method)")
    return FIGURES[kind], place


def figure_reads(name: str) -> list[str]:
    """Return the files that a figure is drawn from, below the study's folder."""
    figure, place = parse_figure(name)
    return [path.format(*place) for path in figure.reads]


def missing_inputs(name: str, study_dir: Path) -> list[str]:
    """Return what a figure cannot be drawn without and is not in the study's folder."""
    reads = figure_reads(name)
    # What lies beside the scores makes such a figure say more; without scores the first file is what is drawn.
    wanted = ["scores.csv"] if "scores.csv" in reads else reads[:1]
    return [path for path in wanted if not (study_dir / path).exists()]


def draw(name: str, study_dir: Path, out_dir: Path, *, pdf: bool = False) -> list[Path]:
    """Draw one figure: `<name>.png`, its caption `.md`, its source table `.csv`, on request `.pdf`.

    Raises:
        UserError: no figure has that name, or a file it needs is missing or wrong.
    """
    figure, place = parse_figure(name)
    from lowdata_cpt.analysis.study_files import study_files
    from lowdata_cpt.analysis.style import house_style, save

    function = getattr(importlib.import_module(f"{ANALYSIS}.{figure.module}"), figure.function)
    with house_style():
        return save(function(study_files(study_dir), *place), out_dir, name, pdf=pdf)
