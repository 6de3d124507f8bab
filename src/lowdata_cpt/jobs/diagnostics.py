"""Train one cell again, from the same seed, and look inside the method at a few moments."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from lowdata_cpt.core.device import pick_device
from lowdata_cpt.core.io import write_arrays
from lowdata_cpt.core.provenance import write_sidecar
from lowdata_cpt.jobs.pretrain import inputs_of, open_cell
from lowdata_cpt.study.grid import Cell
from lowdata_cpt.study.paths import Paths
from lowdata_cpt.vision.images import resize, to_images

EXAMPLES = 4
MOMENTS = (0.0, 1 / 3, 2 / 3, 1.0)


def diagnostics(params: dict[str, Any], cell: Cell, paths: Paths, target: Path, device: str = "auto") -> None:
    """Train a cell once more and write what its method's `diagnostics` module shows to one .npz (no pickle).

    Arrays: `image` uint8 [K, S, S, 3], `step` [M], what `during` returns with M in front, and what `at_the_end`
    returns. It takes no checkpoint: a killed run starts over.
    """
    where = pick_device(device)
    run = open_cell(params, cell, paths, where, target.parent / "unused")
    inside = importlib.import_module(f"lowdata_cpt.methods.{run.method.method}.diagnostics")
    images, image_size = run.images, int(params["image_size"])
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
    write_arrays(target, arrays)
    write_sidecar(target, inputs=list(inputs_of(cell, paths)), config=params)
