"""What is measured: learners on random weights, and a store with every kind of label, of any size, on any device."""

from __future__ import annotations

import copy
import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.methods.harness import make_backbone, make_context, make_images
from tests.methods.v_pretraining_setup import make_feedback
from tests.probes import synthetic
from torch import Tensor

from lowdata_cpt.data.store import Store
from lowdata_cpt.methods.base import MethodConfig
from lowdata_cpt.methods.registry import METHODS, name_of
from lowdata_cpt.training.config import Training
from lowdata_cpt.training.learner import Learner, Progress, Views
from lowdata_cpt.training.loop import Run

TRAINED = {name_of(config): config for config in METHODS if config.learner_path}
MIDDLE = Progress(50, 100, 5, 10)  # a step of the middle of a run
SMALL_HEADS: dict[str, Any] = {"prototypes": 64, "head_hidden": 32, "head_bottleneck": 16}


def configured(method: str, **settings: Any) -> MethodConfig:
    """Return a method's recipe with those of `settings` that it knows."""
    known = TRAINED[method].model_fields
    return TRAINED[method](**{key: value for key, value in settings.items() if key in known})


backbone_of = functools.cache(make_backbone)


def make(config: MethodConfig, model: str, size: int, batch: int, device: str = "cpu", n_images: int = 32) -> Learner:
    """Return a method's learner on random weights, the same at every call, in training mode."""
    backbone = copy.deepcopy(backbone_of(model, size))
    feedback = make_feedback(size=size) if config.needs_feedback else None
    context = make_context(backbone, n_images, MIDDLE.steps, batch, feedback)
    torch.manual_seed(0)
    learner = config.learner()(backbone, config, dataclasses.replace(context, device=torch.device(device)))
    return learner.to(device).train()


def one_epoch(learner: Learner, raw: np.ndarray, config: MethodConfig, batch: int, folder: str) -> Run:
    """Return a run of one epoch over uint8 images [N, H, W, 3], on the CPU."""
    training = Training(epochs=1, batch_size=batch)
    device = torch.device("cpu")
    return Run(learner, raw, config, training, seed=0, device=device, folder=Path(folder), identity="benchmark")


def views_of(learner: Learner, images: Tensor, seed: int = 0) -> Views:
    """Return the learner's views of images on its device, drawn with `seed`."""
    return learner.views(images, torch.Generator().manual_seed(seed))


def pixels(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Return blobs as uint8 [count, size, size, 3]."""
    found: np.ndarray = (make_images(count, size, seed) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    return found


def labelled_store(root: Path, size: int, counts: dict[str, int]) -> Store:
    """Write images whose class is their strongest channel, by pixel and as a whole, and whose depth is brightness."""
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for seed, (split, count) in enumerate(counts.items()):
        images = pixels(count, size, seed)
        labels = images.mean((1, 2)).argmax(1)
        labels[:3] = range(3)  # every class in every split
        arrays[split] = {
            "images": images,
            "segmentation": images.argmax(3).astype(np.uint8),
            "depth": (1 + images.mean(3) / 64).astype(np.float32),
            "labels": labels.astype(np.int64),
        }
    sets, names = synthetic.splits(), ["red", "green", "blue"]
    tasks: dict[str, dict[str, Any]] = {
        "classification": {"sets": sets, "classes": names},
        "segmentation": {"sets": sets, "classes": names},
        "depth": {"sets": sets, "depth_range": [0.1, 10.0]},
    }
    return synthetic.write_store(root, arrays, tasks, resolution=size)


def backward(learner: Learner, views: Views, index: Tensor, seed: int = 0) -> Tensor:
    """Take forward and backward of one step, gradients from zero; return the loss."""
    learner.zero_grad(set_to_none=True)
    torch.manual_seed(seed)
    loss, _ = learner.step(views, index, MIDDLE)
    loss.backward()  # type: ignore[no-untyped-call]
    forget(learner)
    return loss.detach()


def forget(learner: Learner) -> None:
    """Drop the teacher's logits that wait for an `after_step`, where no step is taken."""
    waiting: Any = getattr(learner, "teacher_logits", [])
    for logits in waiting.values() if isinstance(waiting, dict) else [waiting]:
        logits.clear()


def gradient(learner: Learner) -> Tensor:
    """Return all gradients as one vector."""
    found: Tensor = torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None])
    return found


def images_of(batch: int, size: int, device: str = "cpu") -> Tensor:
    """Return blobs [batch, 3, size, size] in [0, 1] on a device."""
    return make_images(batch, size).to(device)
