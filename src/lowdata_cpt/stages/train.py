"""Stages that make models: the released backbone, and the continued pretraining of one cell."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import TypeAdapter

from lowdata_cpt.backbones import weights
from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.config.study import Backbone, MethodEntry
from lowdata_cpt.data.store import Store, Task
from lowdata_cpt.data.subsets import read_manifest
from lowdata_cpt.device import pick_device
from lowdata_cpt.errors import UserError
from lowdata_cpt.io import identity, read_json, sha256_file, write_json
from lowdata_cpt.methods.base import MethodConfig
from lowdata_cpt.methods.learner import Context, Feedback
from lowdata_cpt.provenance import write_sidecar
from lowdata_cpt.stages.inputs import open_store
from lowdata_cpt.training.config import Training
from lowdata_cpt.training.loop import Run

CACHE = Path(".cache")
LOG_COLUMNS = ["step", "images_seen", "part", "value"]


def backbone(config: dict[str, Any], target: Path) -> None:
    """Fetch a released backbone once and write it as a model folder."""
    settings = Backbone.model_validate(config)
    vit = weights.obtain(settings.model, settings.weights, settings.sha256, settings.image_size, CACHE)
    weights.save_export(target, settings.model, vit.timm_state(), {}, None)
    write_sidecar(target / weights.MODEL, config=config)


def feedback_of(store: Store) -> Feedback:
    """Return the labelled train images; a test image among them is a programming error and stops the run."""
    dense: tuple[Task, ...] = ("segmentation", "depth")
    tasks = [task for task in dense if task in store.meta.tasks]
    if not tasks:
        raise UserError(f"domain {store.meta.domain!r} has neither segmentation nor depth labels to give feedback")
    infos = {task: store.task(task) for task in tasks}
    name = infos[tasks[0]].sets["train"]
    rows = store.rows(name)
    for info in infos.values():
        test = set(store.rows(info.sets["test"])["sha256"])
        assert not test & set(rows["sha256"]), "a feedback image is a test image"
    segmentation, depth = infos.get("segmentation"), infos.get("depth")
    return Feedback(
        images=np.array(store.images(name)),
        segmentation=np.array(store.segmentation(name)) if segmentation else None,
        depth=np.array(store.depth(name)) if depth and depth.sets["train"] == name else None,
        classes=len(segmentation.classes) if segmentation else 0,
        ignore_index=segmentation.ignore_index if segmentation else 255,
        depth_range=depth.depth_range if depth else (1e-3, 10.0),
        sha256=tuple(rows["sha256"]),
    )


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
    folder: Path | None = None
    if method.learner_path is None:
        if method.method == "random":
            vit.randomise(seed)
        weights.save_export(target / "export", name, vit.timm_state(), {}, None)
    else:
        assert subset_manifest is not None, "a trained method needs a subset"
        store = open_store(manifest)
        rows = read_manifest(subset_manifest, store)["row"].to_numpy()
        images = np.asarray(store.images(store.meta.pool)[rows])
        key = run_identity(method, training, image_size, seed, inputs)
        folder = checkpoints / key[:12]
        run = prepare_run(method, training, vit, images, store, seed, pick_device(device), folder, key)
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
    write_sidecar(target / "export" / weights.MODEL, inputs=list(inputs), config=config | {"seed": seed}, cost=cost)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def prepare_run(
    method: MethodConfig,
    training: Training,
    vit: ViT,
    images: np.ndarray,
    store: Store,
    seed: int,
    device: torch.device,
    folder: Path,
    key: str,
) -> Run:
    """Build learner and run; the learner's new weights come from the global generator, seeded here."""
    epochs, steps_per_epoch = training.length(len(images))
    pixels = images.reshape(-1, 3).astype(np.float64) / 255
    context = Context(
        n_images=len(images),
        image_size=vit.image_size,
        mean=vit.mean,
        std=vit.std,
        domain_mean=tuple(pixels.mean(0)),
        domain_std=tuple(pixels.std(0)),
        steps=min(epochs * steps_per_epoch, training.max_steps or epochs * steps_per_epoch),
        steps_per_epoch=steps_per_epoch,
        batch_size=training.batch_size,
        seed=seed,
        device=device,
        feedback=feedback_of(store) if method.needs_feedback else None,
    )
    torch.manual_seed(seed)
    learner = method.learner()(vit, method, context)
    label = f"{method.method} n={len(images)} seed={seed}"
    return Run(learner, images, method, training, seed=seed, device=device, folder=folder, identity=key, label=label)
