"""Jobs that make models: the released backbone, and the continued pretraining of one cell."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lowdata_cpt.backbones import weights
from lowdata_cpt.backbones.opening import describe
from lowdata_cpt.core.device import pick_device
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import identity, sha256_file, write_json, writing
from lowdata_cpt.core.provenance import write_sidecar
from lowdata_cpt.data.store import Store
from lowdata_cpt.data.subsets import read_manifest
from lowdata_cpt.methods.base import MethodConfig
from lowdata_cpt.methods.registry import parse
from lowdata_cpt.study.config import Backbone
from lowdata_cpt.study.grid import Cell
from lowdata_cpt.study.paths import Paths
from lowdata_cpt.training.config import Training
from lowdata_cpt.training.loop import Run
from lowdata_cpt.training.prepare import prepare_run

CACHE = Path(".cache")
LOG_COLUMNS = ["step", "images_seen", "part", "value"]


def backbone(params: dict[str, Any], target: Path) -> None:
    """Fetch a released backbone once and write it as a model folder."""
    settings = Backbone.model_validate(params["backbone"])
    vit = weights.obtain(settings.model, settings.weights, settings.sha256, settings.image_size, CACHE)
    if type(vit.model.patch_embed).__name__ != "PatchEmbed":
        raise UserError(
            f"backbone model {settings.model!r} embeds patches by {type(vit.model.patch_embed).__name__}, a hybrid of "
            "convolutions and transformer; expected a plain ViT"
        )
    weights.save_export(target, settings.model, vit.timm_state(), {}, None)
    weights.record_export(target, config=params)


def open_cell(params: dict[str, Any], cell: Cell, paths: Paths, device: torch.device, folder: Path) -> Run:
    """Build the run of a trained cell from its inputs; `folder` keeps its checkpoint.

    Raises:
        UserError: an input is missing, or does not fit the others.
    """
    method, training = parse(params["method"]), Training.model_validate(params["training"])
    vit = weights.open_export(paths.backbone(cell.backbone), int(params["image_size"]))
    store = Store.open(paths.manifest(cell.domain))
    drawn = read_manifest(paths.subset(cell.domain, cell.n, cell.seed), store, cell.n)
    images = np.asarray(store.images(store.meta.pool)[drawn["row"].to_numpy()])
    key = identity({"params": params, "inputs": [sha256_file(path) for path in inputs_of(cell, paths)]})
    return prepare_run(
        method, training, vit, images, store, cell.seed, device, folder / key[:12], key, set(drawn["sha256"])
    )


def inputs_of(cell: Cell, paths: Paths) -> list[Path]:
    """Return the files that a cell's weights are made from."""
    subset = [paths.subset(cell.domain, cell.n, cell.seed)] if cell.n else []
    return [paths.backbone(cell.backbone) / weights.MODEL, paths.manifest(cell.domain), *subset]


def pretrain(
    params: dict[str, Any], cell: Cell, paths: Paths, *, device: str = "auto", checkpoint_seconds: float = 300.0
) -> None:
    """Continue pretraining and export the model at each milestone; what trains nothing passes its weights on.

    Args:
        params: see `study.job_params.pretrain_params`.
        cell: which cell.
        paths: of the study; reads its backbone, domain and subset, writes `export/i<images seen>` (model folders),
            `log.csv` and `cost.json` into the cell's folder.
        device: auto, cpu or cuda.
        checkpoint_seconds: time between two checkpoints.

    Raises:
        InterruptedRunError: a signal asked to stop; the state is saved and the same command resumes from it.
        UserError: an input is missing or damaged, or the loss is not finite.
    """
    for path in inputs_of(cell, paths):
        if not path.exists():
            raise UserError(f"{path}: missing; it is an input of {cell.name}: `snakemake --cores 1 {path}` makes it")
    where, target = pick_device(device), paths.cell(cell)
    shutil.rmtree(target / "export", ignore_errors=True)
    method = parse(params["method"])
    if method.learner_path is None:
        log, cost = pd.DataFrame(columns=LOG_COLUMNS), _pass_on(method, params, cell, paths)
    else:
        folder = paths.checkpoints(cell)
        run = open_cell(params, cell, paths, where, folder)
        run.checkpoint_seconds = checkpoint_seconds
        result = run.train(lambda images: _export(run, params, run.folder / "export" / f"i{images}"))
        _check_exports(run.folder)
        with writing(target / "export"):
            shutil.copytree(run.folder / "export", target / "export")
        log, cost = result.log, result.cost()
    # Seconds say little without what they were spent on.
    cost["device"] = torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
    cost["threads"] = torch.get_num_threads()
    log.to_csv(target / "log.csv", index=False)
    write_json(target / "cost.json", cost)
    models = sorted(path.parent for path in (target / "export").glob(f"*/{weights.MODEL}"))
    # The weights may be deleted once they are scored; what made them stays beside the cost.
    facts: dict[str, Any] = {
        "inputs": list(inputs_of(cell, paths)),
        "config": params,
        "cost": cost,
        "weights_sha256": {model.name: sha256_file(model / weights.MODEL) for model in models},
    }
    for model in models:
        weights.record_export(model, **facts)
    write_sidecar(target / "cost.json", beside=[target / "log.csv"], **facts)
    shutil.rmtree(paths.checkpoints(cell), ignore_errors=True)


def _export(run: Run, params: dict[str, Any], folder: Path) -> None:
    """Write the model of a milestone; the run's checkpoint that follows says that it is whole."""
    export = run.learner.export()
    shutil.rmtree(folder, ignore_errors=True)
    weights.save_export(folder, params["model"], export.backbone, export.adapter, export.adapter_config)
    describe(folder, params["model"], int(params["image_size"]))
    weights.record_export(folder)


def _check_exports(folder: Path) -> None:
    """Hold the models of a run to what was exported: it may have been killed, and resumed later.

    Raises:
        UserError: one is damaged.
    """
    for export in sorted((folder / "export").iterdir()):
        try:
            weights.check_export(export)
        except UserError as error:
            damage = str(error).partition(";")[0]
            raise UserError(f"{damage}; delete {folder} to start this run again") from None


def _pass_on(method: MethodConfig, params: dict[str, Any], cell: Cell, paths: Paths) -> dict[str, Any]:
    """Export a method that trains nothing; return its cost."""
    vit = weights.open_export(paths.backbone(cell.backbone), int(params["image_size"]))
    store = Store.open(paths.manifest(cell.domain))
    state = method.untrained_state(vit, store.images(store.meta.pool), cell.seed)
    model = vit.name
    folder = paths.cell(cell) / "export" / "i0"
    weights.save_export(folder, model, state, {}, None)
    describe(folder, model, int(params["image_size"]))
    return {"images_seen": 0, "train_seconds": 0.0, "steps": 0, "trainable_parameters": 0, "milestones": {"0": 0.0}}
