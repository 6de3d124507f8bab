"""From a learner's start and data to a run of the training loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lowdata_cpt.language import config
from lowdata_cpt.language.data import Splits
from lowdata_cpt.language.learner import LanguageLearner, Setting
from lowdata_cpt.language.models import adapt, build, vocabulary_of
from lowdata_cpt.training.loop import Run


def prepare(
    model: nn.Module,
    length: config.Length,
    windows: Any,
    setting: Setting,
    *,
    device: torch.device,
    folder: Path,
    key: str,
) -> Run:
    """Build learner and run over windows [N, L + 1]."""
    learner = LanguageLearner(model, setting)
    return Run(
        learner,
        np.array(windows),
        length.recipe(setting.arm),
        length.training(len(windows)),
        seed=setting.seed,
        device=device,
        folder=folder,
        identity=key,
        label=f"{setting.arm} seed={setting.seed}",
        prepare=torch.Tensor.long,
        unit="windows",
    )


def pretraining(params: dict[str, Any], splits: Splits, device: torch.device, folder: Path, key: str) -> Run:
    """Return the run that gives a model of random weights its start."""
    length = config.Length.model_validate(params["pretraining"]).model_copy(update={"milestones": 1})
    window = int(params["window"])
    torch.manual_seed(0)
    model = build(config.ByteModel.model_validate(params["model"]), window)
    assert splits.pretraining is not None
    setting = Setting("next_token", config.Designer(), splits.feedback, window, vocabulary_of(model), 0)
    return prepare(model, length, splits.pretraining, setting, device=device, folder=folder, key=key)


def continued(
    params: dict[str, Any], model: nn.Module, splits: Splits, device: torch.device, folder: Path, key: str
) -> Run:
    """Return the run of an arm from a start; LoRA's weights are drawn first, so that the arms begin alike."""
    of, seed = params["learner"], int(params["seed"])
    lora = None if of["lora"] is None else config.LoRA.model_validate(of["lora"])
    torch.manual_seed(seed)
    setting = Setting(
        params["arm"],
        config.Designer.model_validate(params["designer"] or {}),
        splits.feedback,
        int(of["window"]),
        vocabulary_of(model),
        seed,
    )
    length = config.Length.model_validate(of["training"])
    return prepare(adapt(model, lora), length, splits.stream, setting, device=device, folder=folder, key=key)
