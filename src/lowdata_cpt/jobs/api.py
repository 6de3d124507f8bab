"""Continued pretraining from Python: a folder of images in, a model out."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

from torch import nn

from lowdata_cpt.backbones.weights import open_export
from lowdata_cpt.core.determinism import deterministic_kernels
from lowdata_cpt.core.device import pick_device
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json
from lowdata_cpt.core.paths import expanded
from lowdata_cpt.data.layouts.folders import images_in
from lowdata_cpt.data.layouts.layout import label_folder
from lowdata_cpt.jobs import pretrain
from lowdata_cpt.jobs.chain import run_data, run_inputs
from lowdata_cpt.study import job_params
from lowdata_cpt.study.checks import check_machine
from lowdata_cpt.study.grid import Cell
from lowdata_cpt.study.load import validate
from lowdata_cpt.study.paths import Paths

EMBEDDED = {"model": "vit_small_patch14_dinov2", "weights": "embedded:imgfocus", "image_size": 98}
DEVICES = ("auto", "cpu", "cuda")
FEWEST = 2
"""Images that can be told from each other, which is what DIET-CP trains."""


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
    if device not in DEVICES:
        raise UserError(f"device is {device!r}; expected one of {', '.join(DEVICES)}")
    pick_device(device)
    folder, target = _path(images, "images").resolve(), _path(out, "out")
    if not folder.is_dir():
        raise UserError(f"images: {folder} is no folder; expected one of images")
    if found := label_folder(images_in(folder).images, folder):
        raise UserError(
            f"images: {folder}/{found} is called like a folder of label files, and its pictures would be trained on; "
            "expected a folder of images alone"
        )
    if target.exists() and not target.is_dir():
        raise UserError(f"out: {target} is a file; expected a folder, which is made where there is none")
    paths = Paths(target, work=target / "work")
    raw: dict[str, Any] = {
        "study": "images",
        "backbones": {"backbone": EMBEDDED if backbone is None else backbone},
        "domains": {"images": {"kind": "imagefolder", "root": str(folder), "sizes": [FEWEST], "labels": "none"}},
        "methods": {"base": {}, str(method): {} if settings is None else settings},
        "training": {"epochs": 150, "batch_size": 32},
        "seeds": [_whole(seed)],
    }
    study = validate(raw, "continue_pretraining")
    if study.methods[method].learner_path is None:
        raise UserError(f"method {method!r} trains nothing; expected one that does, like 'diet_cp'")
    check_machine(study, "continue_pretraining", paths.root)
    run_data(study, "images", paths)
    facts = read_json(paths.manifest("images"))
    pool = int(facts["images"]["pool"])
    if pool < FEWEST:
        raise UserError(f"images: {folder} has {pool} image that can be used; expected {FEWEST} or more")
    cell = Cell("backbone", "images", method, pool, study.seeds[0])
    run_inputs(study, cell, paths)
    with deterministic_kernels():
        pretrain.pretrain(job_params.pretrain_params(study, cell), cell, paths, device=device)
    cost = read_json(paths.cell(cell) / "cost.json")
    export = paths.cell(cell) / "export" / f"i{cost['images_seen']}"
    model: nn.Module = open_export(export, study.backbones["backbone"].image_size).model
    return model


def _path(given: Any, name: str) -> Path:
    """Return an argument as a path: ~ and $NAME expanded; an empty one is no name of the working directory."""
    if not isinstance(given, (str, Path)) or not str(given) or "\0" in str(given):
        raise UserError(f"{name} is {given!r}; expected the path of a folder")
    return expanded(given)


def _whole(seed: Any) -> Any:
    """Return a seed as Python's whole number, NumPy's too; what is none goes on to be refused with its key."""
    try:
        return seed if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        return seed
