"""Train one cell again, from the same seed, and look inside the method at a few moments."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from lowdata_cpt.backbones import weights
from lowdata_cpt.core.device import pick_device
from lowdata_cpt.core.io import atomic_path
from lowdata_cpt.core.provenance import write_sidecar
from lowdata_cpt.data.subsets import read_manifest
from lowdata_cpt.jobs.inputs import open_store
from lowdata_cpt.methods.base import MethodConfig
from lowdata_cpt.study.config import MethodEntry
from lowdata_cpt.training.config import Training
from lowdata_cpt.training.prepare import prepare_run
from lowdata_cpt.vision.images import resize, to_images

EXAMPLES = 4
MOMENTS = (0.0, 1 / 3, 2 / 3, 1.0)


def illustrate(
    config: dict[str, Any],
    *,
    backbone_folder: Path,
    manifest: Path,
    subset_manifest: Path,
    seed: int,
    target: Path,
    device: str,
) -> None:
    """Write what the method's `pictures` module shows to one .npz (no pickle).

    `config` is a training cell's. Arrays: `image` uint8 [K, S, S, 3], `step` [M], what `during` returns with M in
    front, and what `at_the_end` returns. It takes no checkpoint: a killed run starts over.
    """
    method: MethodConfig = TypeAdapter(MethodEntry).validate_python(config["method"])
    training, image_size = Training.model_validate(config["training"]), int(config["image_size"])
    vit = weights.open_export(backbone_folder, image_size)
    store = open_store(manifest)
    images = np.asarray(store.images(store.meta.pool)[read_manifest(subset_manifest, store)["row"].to_numpy()])
    where = pick_device(device)
    run = prepare_run(method, training, vit, images, store, seed, where, target.parent / "unused", "")
    inside = importlib.import_module(f"lowdata_cpt.methods.{method.method}.diagnostics")
    shown = to_images(images[:EXAMPLES], where)
    small = resize(shown, image_size)
    moments = sorted({round(run.steps * fraction) for fraction in MOMENTS})
    seen: list[dict[str, Any]] = []
    for step in range(run.steps + 1):
        if step in moments:
            run.learner.eval()
            seen.append(inside.during(run.learner, shown))
        if step < run.steps:
            run.learner.train()
            run.take_step(step)
    arrays = {name: np.stack([one[name] for one in seen]) for name in seen[0]}
    arrays |= inside.at_the_end(run.learner.eval(), to_images(images, where))
    arrays["image"] = small.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    arrays["step"] = np.array(moments)
    with atomic_path(target) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
    write_sidecar(target, inputs=[manifest, subset_manifest], config=config | {"seed": seed})
