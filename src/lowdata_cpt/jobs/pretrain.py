"""Stages that make models: the released backbone, and the continued pretraining of one cell."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import TypeAdapter

from lowdata_cpt.backbones import normalisation, weights
from lowdata_cpt.core.device import pick_device
from lowdata_cpt.core.io import identity, read_json, sha256_file, write_json
from lowdata_cpt.core.provenance import write_sidecar
from lowdata_cpt.data.subsets import read_manifest
from lowdata_cpt.jobs.inputs import open_store
from lowdata_cpt.methods.base import MethodConfig
from lowdata_cpt.study.config import Backbone, MethodEntry
from lowdata_cpt.training.config import Training
from lowdata_cpt.training.prepare import prepare_run
from lowdata_cpt.vision.images import channel_statistics

CACHE = Path(".cache")
LOG_COLUMNS = ["step", "images_seen", "part", "value"]


def backbone(config: dict[str, Any], target: Path) -> None:
    """Fetch a released backbone once and write it as a model folder."""
    settings = Backbone.model_validate(config)
    vit = weights.obtain(settings.model, settings.weights, settings.sha256, settings.image_size, CACHE)
    weights.save_export(target, settings.model, vit.timm_state(), {}, None)
    write_sidecar(target / weights.MODEL, config=config)


def run_identity(method: MethodConfig, training: Training, image_size: int, seed: int, inputs: list[Path]) -> str:
    """Return the identity of a training run: everything its result depends on, and no resource."""
    return identity(
        {
            "method": method.model_dump(mode="json"),
            "code": method.code_version(),
            "training": training.model_dump(mode="json"),
            "image_size": image_size,
            "seed": seed,
            "inputs": [sha256_file(path) for path in inputs],
        }
    )


def pretrain(
    config: dict[str, Any],
    *,
    backbone_folder: Path,
    manifest: Path,
    subset_manifest: Path | None,
    seed: int,
    target: Path,
    checkpoints: Path,
    device: str,
    checkpoint_seconds: float,
) -> None:
    """Continue pretraining (or, for methods that train nothing, pass the weights on) and export the model.

    `config` has the keys method, training, image_size. Writes model folder `target/export`, `log.csv`, `cost.json`.

    Raises:
        InterruptedRunError: a signal asked to stop; the state is saved and the same command goes on from it.
    """
    method: MethodConfig = TypeAdapter(MethodEntry).validate_python(config["method"])
    training, image_size = Training.model_validate(config["training"]), int(config["image_size"])
    vit = weights.open_export(backbone_folder, image_size)
    inputs = [backbone_folder / weights.MODEL, manifest, *([subset_manifest] if subset_manifest else [])]
    name = read_json(backbone_folder / "model.json")["timm_model"]
    log = pd.DataFrame(columns=LOG_COLUMNS)
    cost: dict[str, Any] = {"images_seen": 0, "train_seconds": 0.0, "steps": 0, "trainable_parameters": 0}
    where = pick_device(device)
    if method.learner_path is None:
        if method.method == "random":
            vit.randomise(seed)
        state = vit.timm_state()
        if method.method == "base_domain_norm":
            store = open_store(manifest)
            state = normalisation.fold(state, channel_statistics(store.images(store.meta.pool)), (vit.mean, vit.std))
        weights.save_export(target / "export", name, state, {}, None)
    else:
        assert subset_manifest is not None, "a trained method needs a subset"
        store = open_store(manifest)
        rows = read_manifest(subset_manifest, store)["row"].to_numpy()
        images = np.asarray(store.images(store.meta.pool)[rows])
        key = run_identity(method, training, image_size, seed, inputs)
        folder = checkpoints / key[:12]
        run = prepare_run(method, training, vit, images, store, seed, where, folder, key)
        run.checkpoint_seconds = checkpoint_seconds
        result = run.train()
        export = run.learner.export()
        weights.save_export(target / "export", name, export.backbone, export.adapter, export.adapter_config)
        log = result.log
        cost = {
            "images_seen": result.images_seen,
            "train_seconds": round(result.seconds, 3),
            "steps": result.steps,
            "trainable_parameters": result.trainable_parameters,
        }
    log.to_csv(target / "log.csv", index=False)
    write_json(target / "cost.json", cost)
    # The weights may be deleted once they are scored; what made them stays beside the cost.
    model = target / "export" / weights.MODEL
    device_name = torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
    for artifact in (model, target / "cost.json"):
        write_sidecar(
            artifact,
            inputs=list(inputs),
            config=config | {"seed": seed},
            cost=cost,
            weights_sha256=sha256_file(model),
            device=device_name,
        )
    shutil.rmtree(checkpoints, ignore_errors=True)
