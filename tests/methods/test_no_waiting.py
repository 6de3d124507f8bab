"""A forward pass never waits for a GPU, held without one: with tensors that only say on which device they would be."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest
import torch
from benchmarks.subjects import MIDDLE, configured, make
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lowdata_cpt.methods
from tests.gpu import steps


class Copied(TorchDispatchMode):
    """Refuses a copy from the host to the device: it waits, unless `send` makes it, from pinned memory."""

    sending = False

    def send(self, drawn: Tensor, device: torch.device) -> Tensor:
        self.sending = True
        try:
            return drawn.to(device)
        finally:
            self.sending = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        places = {t.device.type for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t.ndim}
        if len(places) > 1 and func is not torch.ops.aten._to_copy.default and not self.sending:
            raise AssertionError(f"{func} takes tensors of {sorted(places)}")
        if func is torch.ops.aten._to_copy.default and found.device != args[0].device and not self.sending:
            raise AssertionError(f"copied from {args[0].device} to {found.device}: {tuple(found.shape)}")
        return found


def forward(method: str, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Take a step's forward pass on the device that is not there."""
    copied = Copied()
    for module in pkgutil.walk_packages(lowdata_cpt.methods.__path__, "lowdata_cpt.methods."):
        if hasattr(importlib.import_module(module.name), "send"):
            monkeypatch.setattr(f"{module.name}.send", copied.send)
    # GLARE's local term pairs patches on the CPU, which such tensors cannot do.
    config = configured(method, **steps.SMALL, weight_local=0.0)
    learner = make(config, steps.MODEL, steps.SIZE, steps.BATCH, n_images=steps.BATCH)
    views = learner.views(steps.images(), torch.Generator().manual_seed(0))
    with FakeTensorMode(allow_non_fake_inputs=True):
        learner = learner.to("cuda")
        placed = {name: view.to("cuda") for name, view in views.items()}
        index = torch.arange(steps.BATCH, device="cuda")
        with copied:
            loss, _ = learner.step(placed, index, MIDDLE)
    return loss


@pytest.mark.parametrize("method", ["diet_cp", "dino", "glare", "mae", "tec"])
def test_a_step_does_not_wait_for_the_device(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for a value of the device, or for how many of its values are true, raises here."""
    assert forward(method, monkeypatch).device.type == "cuda"


def test_a_copy_that_waits_is_noticed() -> None:
    with FakeTensorMode(), Copied():
        there = torch.zeros(2, device="cuda")
        with pytest.raises(AssertionError, match="copied from cpu to cuda"):
            torch.zeros(2).to("cuda")
        with pytest.raises(AssertionError, match="takes tensors of"):
            there.copy_(torch.zeros(2))
