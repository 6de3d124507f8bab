"""A language study of seconds, and its learners without a workflow around them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lowdata_cpt.dev.golden import LANGUAGE
from lowdata_cpt.language import data, models, runs
from lowdata_cpt.language.config import LanguageStudy, validate
from lowdata_cpt.language.plan import Cell, continue_params
from lowdata_cpt.training.loop import Run

CPU = torch.device("cpu")


def raw(**designer: Any) -> dict[str, Any]:
    """Return the golden study's configuration, its designer changed."""
    content = copy.deepcopy(LANGUAGE)
    content["designer"] |= designer
    return content


def changed(change: dict[str, Any]) -> dict[str, Any]:
    """Return the golden study's configuration with the values of dotted keys changed."""
    content = raw()
    for key, value in change.items():
        at: Any = content
        *path, last = key.split(".")
        for step in path:
            at = at[step]
        at[last] = value
    return content


def study(
    *, lora: bool = False, architecture: str = "llama", training: dict[str, Any] | None = None, **designer: Any
) -> LanguageStudy:
    content = raw(**designer)
    learner = content["learners"]["tiny"]
    learner["model"]["architecture"] = architecture
    learner["training"] |= training or {}
    if not lora:
        del learner["lora"]
    return validate(content)


def splits_of(of: LanguageStudy) -> data.Splits:
    at = of.evaluation
    return data.make(of.data, of.learners["tiny"], of.feedback, at.problems, at.prose_windows)


def run_of(of: LanguageStudy, arm: str, folder: Path, splits: data.Splits | None = None, seed: int = 1) -> Run:
    """Return the run of an arm from one random start."""
    learner = of.learners["tiny"]
    torch.manual_seed(7)
    model = models.build(learner.model, learner.window)  # type: ignore[arg-type]
    params = continue_params(of, Cell("tiny", arm, seed))
    run = runs.continued(params, model, splits or splits_of(of), CPU, folder, "key")
    run.learner.train()
    return run


def weights(run: Run) -> dict[str, np.ndarray]:
    return {name: w.detach().numpy().copy() for name, w in run.learner.model.state_dict().items()}  # type: ignore[union-attr,operator]


def equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
