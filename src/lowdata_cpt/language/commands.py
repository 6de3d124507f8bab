"""`lowdata-cpt language …`: the steps of a language study. Light: what computes is imported when it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lowdata_cpt.core.determinism import deterministic
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.options import PATH, compute, step, trains

if TYPE_CHECKING:
    from lowdata_cpt.language.plan import Paths

CELL = "LEARNER/ARM/sSEED"


@click.group()
def language() -> None:
    """V-pretraining for language: the steps of a study of `kind: language`."""


def _given(study: Path | None, results: Path | None, params: Any, wanted: Callable[[Any], Any]) -> tuple[Any, Paths]:
    """Return a step's parameters and the study's paths.

    Raises:
        UserError: neither a file nor parameters are given, or the file is wrong.
    """
    from lowdata_cpt.language.config import load
    from lowdata_cpt.language.plan import Paths

    if params is not None and results is not None:
        return params, Paths(results)
    if study is None:
        raise UserError("--study is missing; expected a language study's file, for example config/language.yaml")
    of = load(study)
    return wanted(of), Paths(results or Path("results", of.study))


@language.command()
@step
@click.option("--learner", required=True)
def data(study: Path | None, results: Path | None, params: Any, learner: str) -> None:
    """Write a learner's splits: mixture, stream, feedback, held-out problems and prose."""
    from lowdata_cpt.language.jobs import make_data
    from lowdata_cpt.language.plan import base_of, data_params, known

    of, paths = _given(study, results, params, lambda s: data_params(s, known(base_of(learner), s).learner))
    make_data(of, learner, paths)


@language.command()
@step
@trains
@click.option("--learner", required=True)
def base(
    study: Path | None, results: Path | None, params: Any, learner: str, device: str, threads: int,
    checkpoint_seconds: float,
) -> None:  # fmt: skip
    """Make a learner's start: pretrain it, or fetch released weights."""
    deterministic(threads)
    from lowdata_cpt.language.jobs import make_base
    from lowdata_cpt.language.plan import base_of, base_params, known

    of, paths = _given(study, results, params, lambda s: base_params(s, known(base_of(learner), s).learner))
    make_base(of, learner, paths, device=device, checkpoint_seconds=checkpoint_seconds)


@language.command("continue")
@step
@trains
@click.option("--cell", required=True, metavar=CELL)
def continue_(
    study: Path | None, results: Path | None, params: Any, cell: str, device: str, threads: int,
    checkpoint_seconds: float,
) -> None:  # fmt: skip
    """Continue one cell; interrupted, it resumes from its checkpoint."""
    deterministic(threads)
    from lowdata_cpt.language.jobs import continue_cell
    from lowdata_cpt.language.plan import continue_params, known, parse_cell

    found = parse_cell(cell)
    of, paths = _given(study, results, params, lambda s: continue_params(s, known(found, s)))
    continue_cell(of, found, paths, device=device, checkpoint_seconds=checkpoint_seconds)


@language.command()
@step
@compute
@click.option("--cell", required=True, metavar=CELL)
def evaluate(study: Path | None, results: Path | None, params: Any, cell: str, device: str, threads: int) -> None:
    """Score every milestone of a cell (LEARNER/base/s0 is the start)."""
    deterministic(threads)
    from lowdata_cpt.language.jobs import evaluate_cell
    from lowdata_cpt.language.plan import evaluate_params, known, parse_cell

    found = parse_cell(cell)
    of, paths = _given(study, results, params, lambda s: evaluate_params(s, known(found, s)))
    evaluate_cell(of, found, paths, device=device)


@language.command()
@step
def collect(study: Path | None, results: Path | None, params: Any) -> None:
    """Gather the cells into the study's tables."""
    from lowdata_cpt.language import results as tables
    from lowdata_cpt.language.config import validate
    from lowdata_cpt.study.job_params import study_params

    of, paths = _given(study, results, params, study_params)
    tables.collect(validate(of), paths)


@language.command()
@click.argument("folder", type=PATH)
def report(folder: Path) -> None:
    """Write FOLDER's intervals, verdicts and figures from its tables, without torch."""
    from lowdata_cpt.language import figures

    figures.report(folder)


def checked(file: Path) -> bool:
    """Check a language study's file, its data and its models; return False where it is of another kind.

    Raises:
        UserError: it is wrong, or its data or models are not here.
    """
    from lowdata_cpt.language.config import is_language, load
    from lowdata_cpt.study.load import read

    if not is_language(read(file)):
        return False
    from lowdata_cpt.language.plan import check_machine

    check_machine(load(file), str(file))
    return True


def shown(folder: Path) -> bool:
    """Print a language study's headline; return False where the folder is of another kind."""
    from lowdata_cpt.core.io import read_json
    from lowdata_cpt.language.config import is_language

    if not (folder / "study.json").exists() or not is_language(read_json(folder / "study.json")):
        return False
    from lowdata_cpt.language.results import headline

    click.echo(headline(folder))
    return True
