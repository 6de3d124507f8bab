"""The cells of a study of either kind, as `pack` and `restore` see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lowdata_cpt.core.provenance import sidecar_path
from lowdata_cpt.jobs.pretrain import inputs_of
from lowdata_cpt.language import config as language_config
from lowdata_cpt.language import plan
from lowdata_cpt.language.config import BASE, LanguageStudy
from lowdata_cpt.study import grid, job_params
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.load import load, read
from lowdata_cpt.study.paths import Paths

FINISHED = "finished"
COST, SCORES, EXAMPLES = "cost.json", "evaluation.json", "examples.npz"
OF_TRAINING = (COST, "log.csv", sidecar_path(COST).name)
OF_SCORES = (SCORES, "outcomes.npz", sidecar_path(SCORES).name)


class Packed(NamedTuple):
    """A cell: where its files lie, what is packed of them, and what they are made from."""

    name: str
    archive: Path
    place: str
    """Its folder in the archive, with a slash at the end."""
    folder: Path
    trained: Path
    """Folder of the cell whose model it evaluates, for most its own."""
    files: tuple[str, ...]
    inputs: tuple[Path, ...]
    """What is made before it is restored."""
    made_with: Callable[[], dict[str, job_params.Params]]
    """Parameters with which today's code makes COST and SCORES."""

    @property
    def is_finished(self) -> bool:
        """Whether it is trained and scored."""
        return (self.folder / SCORES).exists() and (self.trained / COST).exists()


def packed_cells(file: str | Path, *, absent_too: bool = False) -> list[Packed]:
    """Return the cells of the study in a configuration file.

    Args:
        file: config/<name>.yaml.
        absent_too: also those of domains whose data are not on this machine.

    Raises:
        UserError: it is missing or wrong.
    """
    if language_config.is_language(read(Path(file))):
        return list(_of_language(language_config.load(file)))
    study = load(file)
    return list(_of_images(study if absent_too else grid.split_absent(study)[0]))


def _of_images(study: Study) -> Iterator[Packed]:
    """Yield scores, outcomes, cost and log of each cell; models of hundreds of megabytes are not packed."""
    paths = Paths(Path("results", study.study))
    first = {cell[:2]: cell.seed for pair in grid.pairs(study) for cell in grid.shown_cells(study, *pair)}
    for cell in grid.cells(study):
        own = OF_TRAINING if cell == cell.trained else ()
        # At every n: sheets show the largest that is finished when they are drawn.
        examples = (EXAMPLES,) if cell.seed == first[cell[:2]] else ()
        yield Packed(
            name=cell.name,
            archive=paths.root / FINISHED / f"{cell.backbone}-{cell.domain}-{cell.method}.zip",
            place=f"n{cell.n}/s{cell.seed}/",
            folder=paths.cell(cell),
            trained=paths.cell(cell.trained),
            files=(*OF_SCORES, "outcomes.npz.prov.json", *own, *examples),
            inputs=tuple(inputs_of(cell, paths)),
            made_with=partial(_params_of_images, study, cell),
        )


def _params_of_images(study: Study, cell: grid.Cell) -> dict[str, job_params.Params]:
    return {
        COST: job_params.pretrain_params(study, cell.trained),
        SCORES: job_params.evaluate_params(study, cell),
    }


def _of_language(study: LanguageStudy) -> Iterator[Packed]:
    """Yield the same of each cell, first the starts with their weights: all cells of a learner begin there."""
    paths = plan.Paths(Path("results", study.study))
    for cell in (*map(plan.base_of, study.learners), *plan.cells(study)):
        folder = paths.cell(cell)
        start = sorted((folder / "export/t0").glob("*")) if cell.arm == BASE else []
        yield Packed(
            name=cell.name,
            archive=paths.root / FINISHED / f"{cell.learner}-{cell.arm}.zip",
            place=f"s{cell.seed}/",
            folder=folder,
            trained=folder,
            files=(*OF_SCORES, *OF_TRAINING, *(path.relative_to(folder).as_posix() for path in start)),
            inputs=(paths.data(cell.learner),),
            made_with=partial(_params_of_language, study, cell),
        )


def _params_of_language(study: LanguageStudy, cell: plan.Cell) -> dict[str, job_params.Params]:
    is_start = cell.arm == BASE
    return {
        COST: plan.base_params(study, cell.learner) if is_start else plan.continue_params(study, cell),
        SCORES: plan.evaluate_params(study, cell),
    }
