"""What the GPU tests check, with the device as an argument, so that the same code runs on the CPU too."""

from __future__ import annotations

from pathlib import Path

import torch
from benchmarks.subjects import MIDDLE, SMALL_HEADS, TRAINED, configured, forget, gradient, labelled_store, make, pixels
from torch import Tensor

from lowdata_cpt.probes.config import FeaturesConfig
from lowdata_cpt.probes.features import extract
from lowdata_cpt.training.config import Training
from lowdata_cpt.training.learner import Learner
from lowdata_cpt.training.loop import Run
from tests.methods.harness import make_backbone, make_images

METHODS = tuple(TRAINED)
MODEL, SIZE, BATCH = "vit_tiny_patch16_224", 64, 4
BF16 = 0.05  # of the loss: bfloat16 keeps 8 bits, and a pass rounds some tens of times
SMALL = SMALL_HEADS | {"local_crops": 1, "value_batch": 2, "feedback_batch": 2, "every": 1, "designer_channels": 4}


def learner_of(method: str, device: torch.device) -> Learner:
    return make(configured(method, **SMALL), MODEL, SIZE, BATCH, device.type, n_images=BATCH)


def images() -> Tensor:
    return make_images(BATCH, SIZE)


def forward_backward(learner: Learner, images: Tensor, index: Tensor, precision: str) -> Tensor:
    """Return the loss of a step; gradients are left in the learner."""
    learner.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    views = learner.views(images, torch.Generator().manual_seed(0))
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        loss, _ = learner.step(views, index, MIDDLE)
    loss.backward()
    forget(learner)
    return loss.detach()


def apart(a: Tensor, b: Tensor) -> float:
    a, b = a.double().cpu(), b.double().cpu()
    return float((a - b).norm() / b.norm())


def same_step(method: str, precision: str, tolerance: float, device: torch.device) -> None:
    """Hold loss and gradients on a device against the CPU's in fp32 (in bf16 the loss alone)."""
    found = {}
    for name, where in (("cpu", torch.device("cpu")), ("device", device)):
        learner = learner_of(method, where)
        loss = forward_backward(
            learner, images().to(where), torch.arange(BATCH).to(where), "fp32" if name == "cpu" else precision
        )
        found[name] = loss, gradient(learner)
    assert apart(found["device"][0], found["cpu"][0]) <= tolerance
    if precision == "fp32":
        assert apart(found["device"][1], found["cpu"][1]) <= 10 * tolerance


def run_of(method: str, device: torch.device, folder: Path) -> Run:
    config = configured(method, **SMALL)
    return Run(
        make(config, MODEL, SIZE, 2, device.type, n_images=BATCH),
        pixels(BATCH, SIZE),
        config,
        Training(epochs=2, batch_size=2),
        seed=0,
        device=device,
        folder=folder,
        identity=method,
    )


class StoppedError(Exception):
    """A run was killed."""


def resumed_is_equal(method: str, device: torch.device, folder: Path) -> None:
    """Compare the weights of a run of four steps with those of one that is killed and goes on from its state."""
    whole = run_of(method, device, folder / "whole")
    whole.train()
    broken = run_of(method, device, folder / "broken")
    broken.checkpoint_seconds = 0.0  # a state before every step
    take = broken.take_step

    def until_the_third(step: int) -> tuple[int, dict[str, float]]:
        if step == 2:
            raise StoppedError
        return take(step)

    broken.take_step = until_the_third  # type: ignore[method-assign]
    try:
        broken.train()
    except StoppedError:
        pass
    else:
        raise AssertionError("the run was not stopped")
    resumed = run_of(method, device, folder / "broken")
    resumed.train()
    expected = whole.learner.state_dict()
    for name, value in resumed.learner.state_dict().items():
        assert torch.equal(value, expected[name]), name


def same_features(device: torch.device, folder: Path) -> None:
    """Hold the feature pass on a device against the CPU's."""
    store = labelled_store(folder / "store", SIZE, {"train": 4, "val": 3, "test": 3})
    backbone = make_backbone(MODEL, SIZE).eval()
    cpu = extract(backbone, store, FeaturesConfig(batch_size=2), torch.device("cpu"), precision="fp32")
    other = extract(backbone, store, FeaturesConfig(batch_size=2), device, precision="fp32")
    for name, expected in cpu.cls.items():
        assert apart(torch.from_numpy(other.cls[name]), torch.from_numpy(expected)) <= 1e-4
        assert apart(torch.from_numpy(other.patches[name]), torch.from_numpy(cpu.patches[name])) <= 1e-3
