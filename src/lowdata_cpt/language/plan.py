"""The cells of a language study, where their files lie, and what each job's result depends on. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

from lowdata_cpt.core.errors import UserError, several
from lowdata_cpt.data.raw import file_hashes
from lowdata_cpt.language.config import BASE, ByteModel, Hub, HubModel, LanguageStudy
from lowdata_cpt.language.data import files_of
from lowdata_cpt.language.text import PROSE_SHA256
from lowdata_cpt.language.tokens import model_folder
from lowdata_cpt.study import paths as study_paths
from lowdata_cpt.study.checks import in_hub_cache, no_hub
from lowdata_cpt.study.grid import NUMBER
from lowdata_cpt.study.job_params import Params, code_of


class Cell(NamedTuple):
    """A run: a learner continued by an arm under a seed; `base`, seed 0, is the learner's start."""

    learner: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Return LEARNER/ARM/sSEED."""
        return f"{self.learner}/{self.arm}/s{self.seed}"


ANY = Cell("{learner}", "{arm}", cast(int, "{seed}"))
"""Every cell, for the patterns of Snakemake's rules."""


def base_of(learner: str) -> Cell:
    """Return the cell that is a learner's start."""
    return Cell(learner, BASE, 0)


def cells(study: LanguageStudy) -> Iterator[Cell]:
    """Yield the cells that are continued, seed by seed, so that a study that is stopped has whole seeds."""
    for learner in study.learners:
        for seed in study.seeds:
            for arm in study.arms:
                yield Cell(learner, arm, seed)


def parse_cell(text: str) -> Cell:
    """Return the cell of a name.

    Raises:
        UserError: not of that form.
    """
    match = re.fullmatch(f"([^/]+)/([^/]+)/s{NUMBER}", text.strip("/"))
    if match is None:
        raise UserError(f"cell {text[:200]!r}: expected LEARNER/ARM/sSEED")
    return Cell(match[1], match[2], int(match[3]))


def known(cell: Cell, study: LanguageStudy) -> Cell:
    """Return a cell that the study has.

    Raises:
        UserError: it has none of that name.
    """
    every = [*cells(study), *map(base_of, study.learners)]
    if cell not in every:
        raise UserError(f"cell {cell.name!r}: study {study.study} has no such cell; it has for example {every[0].name}")
    return cell


class Paths(study_paths.Paths):
    """The files of a language study below its folder."""

    def data(self, learner: str) -> Path:
        """Return the folder of a learner's splits."""
        return self.root / "data" / learner

    def base(self, learner: str) -> Path:
        """Return the model folder of a learner's start."""
        return self.cell(base_of(learner)) / "export" / "t0"


def check_machine(study: LanguageStudy, where: str) -> None:
    """Check that a study's data and models are here or can be fetched.

    Raises:
        UserError: some are not; one message with a line for every model.
    """
    for learner in study.learners:
        data_params(study, learner)
    lines = [f"learners.{name}.model: {reason}" for name, of in study.learners.items() if (reason := _absent(of.model))]
    if lines:
        raise several(where, lines)


def _absent(model: ByteModel | HubModel) -> str | None:
    """Say why a model cannot be had, or None."""
    if isinstance(model, ByteModel):
        return None
    folder = model_folder(model)
    if folder.is_dir():
        found = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
        return (
            None if found else f"{folder} has no config.json or no *.safetensors; expected {model.name}'s files there"
        )
    if in_hub_cache(f"models--{model.name.replace('/', '--')}") or not (reason := no_hub()):
        return None
    return f"{model.name} would have to come from the model hub, and {reason}; expected its files in {folder}"


def data_params(study: LanguageStudy, learner: str) -> Params:
    """Return what the splits depend on, the raw files of the hub's sets included."""
    of, data = study.learners[learner], study.data
    raw = (
        {key: list(file_hashes(files[0].parent, files).values())
         for key, source in (("stream", data.stream), ("feedback", data.feedback), ("test", data.test))
         if (files := files_of(source))}
        if isinstance(data, Hub) else PROSE_SHA256
    )  # fmt: skip
    return {
        "data": data.model_dump(mode="json"),
        "learner": of.model_dump(mode="json", include={"model", "window", "whole", "pretraining"}),
        "feedback": study.feedback,
        "problems": study.evaluation.problems,
        "prose_windows": study.evaluation.prose_windows,
        "raw": raw,
        "code": code_of("language.data"),
    }


def base_params(study: LanguageStudy, learner: str) -> Params:
    """Return what a learner's start depends on, beside its data."""
    of = study.learners[learner]
    return of.model_dump(mode="json", include={"model", "window", "whole", "pretraining"}) | {
        "code": code_of("language.runs")
    }


def continue_params(study: LanguageStudy, cell: Cell) -> Params:
    """Return what a cell's weights depend on, beside its start and its data."""
    of = study.learners[cell.learner]
    shares = {"candidates", "alpha_max"} if cell.arm in ("uniform_topk", "self_distillation") else None
    return {
        "arm": cell.arm,
        "seed": cell.seed,
        "designer": None if cell.arm == "next_token" else study.designer.model_dump(mode="json", include=shares),
        "learner": of.model_dump(mode="json", exclude={"pretraining"}),
        "code": code_of("language.runs"),
    }


def evaluate_params(study: LanguageStudy, cell: Cell) -> Params:
    """Return what a cell's scores depend on, beside its models and its data."""
    return {
        "evaluation": study.evaluation.model_dump(mode="json", exclude={"problems", "prose_windows"}),
        "model": study.learners[cell.learner].model.model_dump(mode="json"),
        "code": code_of("language.evaluation"),
    }
