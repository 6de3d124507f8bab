"""The answer as far as it goes: tables, verdicts, figures and report of the cells that are finished."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.jobs import collect, report
from lowdata_cpt.jobs.figures import figure_names
from lowdata_cpt.language.config import is_language
from lowdata_cpt.reproduce.dvc import config_file
from lowdata_cpt.reproduce.packed_cells import EXAMPLES, packed_cells
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.grid import Cell, cells, only, pairs, probes_of, shown_cells, split_absent
from lowdata_cpt.study.load import load, read
from lowdata_cpt.study.paths import Paths

SEEDS = 3  # fewer say too little of another run


def told(done: Collection[Cell], wanted: Collection[Cell]) -> list[Cell]:
    """Return the finished cells that an answer is made of.

    Of a trained method on a domain at one n these are all, once `SEEDS` seeds of it are finished, or all that the study
    asks for; before that none. Untrained cells serve as references where something trained is told.
    """

    def runs(cells: Collection[Cell]) -> Counter[Cell]:
        return Counter(cell._replace(seed=0) for cell in cells if cell.n)

    asked, finished = runs(wanted), runs(done)
    if not asked:
        return list(done)
    enough = {run for run, count in finished.items() if count >= min(SEEDS, asked[run])}
    places = {(run.backbone, run.domain) for run in enough}
    return [
        cell for cell in done if (cell._replace(seed=0) in enough if cell.n else (cell.backbone, cell.domain) in places)
    ]


def finished(study: Study, scored: Collection[str]) -> list[Cell]:
    """Return the cells whose names are `scored`, of places whose released backbone is scored for the same seed."""
    done = {cell for cell in cells(study) if cell.name in scored}
    return [cell for cell in cells(study) if cell in done and cell._replace(method="base", n=0) in done]


def partial(name: str, workers: int = 1) -> str:
    """Write everything that a complete study has, of its finished cells (see `told`), and return how many those are.

    study.json holds these cells alone; not_run.json names the domains and runs (domain, method, n) of which there is
    none. A later run of the whole study collects anew, as it makes cells that are newer than the tables.

    Args:
        name: of the study; its configuration is config/<name>.yaml.
        workers: processes that draw figures.

    Raises:
        UserError: the configuration is wrong, or no cell is finished, or none that can be told.
    """
    file = Path(config_file(name))
    scored = {cell.name for cell in packed_cells(file) if cell.is_finished}
    if is_language(read(file)):
        return _of_language(file, scored)
    study, not_run = split_absent(load(file))
    paths, wanted = Paths(Path("results", study.study)), list(cells(study))
    done = finished(study, scored)
    if not done:
        raise UserError(f"{paths.root / 'cells'}: no finished cell; `make reproduce STUDY={name}` computes them")
    shown = told(done, wanted)
    if not shown:
        raise UserError(f"{paths.root / 'cells'}: of no trained method {SEEDS} seeds are finished, or all it has")
    part, begun = only(study, shown), {cell.domain for cell in done if cell.n}
    few = f"fewer than {SEEDS} seeds are computed yet"
    waiting = {
        domain: few if domain in begun else "none of its cells is computed yet"
        for domain in study.domains
        if domain not in part.domains
    }
    runs = {cell[1:4] for cell in shown}
    waiting |= {
        f"{cell.domain}/{cell.method}/n{cell.n}": few
        for cell in wanted
        if cell.domain in part.domains and cell[1:4] not in runs
    }
    collect.collect(part, not_run | waiting, paths)
    # An earlier answer may have had other domains; where a cell is damaged it stays.
    kept = {f"{backbone}-{domain}.npz" for backbone, domain in pairs(part)}
    for gathered in paths.of_study("outcomes").glob("*.npz"):
        if gathered.name not in kept:
            gathered.unlink()
    for folder in ("statistics", "tables"):
        shutil.rmtree(paths.of_study(folder), ignore_errors=True)
    for drawn in paths.of_study("figures").glob("*"):
        if drawn.stem not in figure_names(part):
            drawn.unlink()
    manifests = [paths.manifest(domain) for domain in part.domains if probes_of(part, domain)]
    collect.trivial_baselines(manifests, paths.of_study("trivial_baselines.csv"))
    for backbone, domain in pairs(part):
        # Cells that came from their archives may be without; the sheets stay as they were drawn.
        if all((paths.cell(cell) / EXAMPLES).exists() for cell in shown_cells(part, backbone, domain)):
            collect.examples(paths, backbone, domain, paths.examples(backbone, domain))
        else:
            paths.examples(backbone, domain).unlink(missing_ok=True)
    report.claims(paths.root)
    report.statistics(paths.root)
    report.tables(paths.root)
    report.figures(paths.root, workers=workers)
    report.report(paths.root)
    return f"{len(shown)} of {len(wanted)} cells"


def _of_language(file: Path, scored: Collection[str]) -> str:
    """Do the same for a language study, of the seeds of which every arm is finished."""
    from lowdata_cpt.language import figures, plan, results
    from lowdata_cpt.language.config import load

    study = load(file)
    paths, wanted = plan.Paths(Path("results", study.study)), list(plan.cells(study))
    starts = [plan.base_of(learner) for learner in study.learners]
    waiting = {cell.seed for cell in wanted if cell.name not in scored}
    seeds = tuple(seed for seed in study.seeds if seed not in waiting)
    if not seeds or any(start.name not in scored for start in starts):
        raise UserError(
            f"{paths.root / 'cells'}: no seed is finished; `make reproduce STUDY={file.stem}` computes them"
        )
    results.collect(study.model_copy(update={"seeds": seeds}), paths)
    figures.report(paths.root)
    shown = len(starts) + sum(cell.seed in seeds for cell in wanted)
    return f"{shown} of {len(starts) + len(wanted)} cells"
