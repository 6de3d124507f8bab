"""Continued pretraining from Python: a folder of images in, a model out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from lowdata_cpt.backbones.weights import open_export
from lowdata_cpt.core.io import read_json
from lowdata_cpt.jobs import pretrain
from lowdata_cpt.jobs.chain import run_data, run_inputs
from lowdata_cpt.study import job_params
from lowdata_cpt.study.grid import Cell
from lowdata_cpt.study.load import validate
from lowdata_cpt.study.paths import Paths

EMBEDDED = {"model": "vit_small_patch14_dinov2", "weights": "embedded:imgfocus", "image_size": 98}


def continue_pretraining(
    images: str | Path,
    out: str | Path,
    *,
    method: str = "diet_cp",
    backbone: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
) -> nn.Module:
    """Continue pretraining a released backbone on a folder of images, without labels.

    Args:
        images: folder of images (see docs/data/README.md for what it may hold).
        out: folder for the decoded images, the run's log and `export/` (a folder per milestone, which timm opens);
            a call that was interrupted resumes from its last checkpoint, one with other images or another backbone
            makes what is of them anew.
        method: name of a method that trains.
        backbone: `model` (timm name), `weights` and `image_size` as in a study's `backbones`; the ViT-S/14 that
            ships in a package if not given.
        settings: of the method, as in a study's `methods`; what is left out keeps the method's recipe. The length
            is the recipe's own where the source states one (DIET-CP: 150 epochs), else `training` has to say it.
        seed: of everything that is drawn.
        device: auto, cpu or cuda.

    Returns:
        The timm model with its new weights (GLARE: with its adapters attached), frozen and in eval mode.

    Raises:
        UserError: the images, the backbone or a setting cannot be used; one sentence says why.
    """
    paths = Paths(out, work=Path(out) / "work")
    raw: dict[str, Any] = {
        "study": "images",
        "backbones": {"backbone": backbone or EMBEDDED},
        "domains": {
            "images": {"kind": "imagefolder", "root": str(Path(images).resolve()), "sizes": [1], "labels": "none"}
        },
        "methods": {"base": {}, method: settings or {}},
        "training": {"epochs": 150, "batch_size": 32},
        "seeds": [seed],
    }
    study = validate(raw, "continue_pretraining")
    run_data(study, "images", paths)
    facts = read_json(paths.manifest("images"))
    cell = Cell("backbone", "images", method, int(facts["images"]["pool"]), seed)
    run_inputs(study, cell, paths)
    pretrain.pretrain(job_params.pretrain_params(study, cell), cell, paths, device=device)
    cost = read_json(paths.cell(cell) / "cost.json")
    export = paths.cell(cell) / "export" / f"i{cost['images_seen']}"
    model: nn.Module = open_export(export, study.backbones["backbone"].image_size).model
    return model
