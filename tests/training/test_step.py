"""One optimiser step by hand: loss = mean brightness × (w + b), so its gradient is the mean brightness for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import sha256_bytes
from lowdata_cpt.methods.base import MethodConfig
from lowdata_cpt.training.config import Optimiser, Schedule, Training
from lowdata_cpt.training.learner import Export, Learner, Progress, Views
from lowdata_cpt.training.log import StepLog
from lowdata_cpt.training.loop import Run


class Toy(Learner):
    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.w = torch.nn.Parameter(torch.ones(1, 1))
        self.b = torch.nn.Parameter(torch.ones(1))

    def views(self, images: Tensor, generator: torch.Generator) -> Views:
        return {"x": images.mean((1, 2, 3))}

    def step(self, views: Views, index: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        return (views["x"] * self.w[0, 0] + views["x"] * self.b[0]).mean(), {}

    def export(self) -> Export:
        raise NotImplementedError


def toy(folder: Path, pixels: list[int], clip: float = 1e9, **training: Any) -> Run:
    method = MethodConfig(
        method="toy", schedule=Schedule(warmup=0.0), optimiser=Optimiser(lr=0.1, weight_decay=0.5, clip=clip)
    )
    images = np.array(pixels, np.uint8).reshape(-1, 1, 1, 1).repeat(3, 3)
    length = Training(epochs=1, batch_size=5, **training)
    return Run(Toy(), images, method, length, seed=0, device=torch.device("cpu"), folder=folder, identity="x")


@pytest.mark.parametrize("accumulation", [1, 2])  # in two: micro-batches of 3 and 2, unequal on purpose
def test_the_gradient_is_the_mean_over_the_batch(accumulation: int, tmp_path: Path) -> None:
    _, parts = toy(tmp_path, [0, 0, 0, 255, 255], accumulation=accumulation).take_step(0)
    assert parts["gradient_norm"] == pytest.approx(0.4 * 2**0.5)
    assert parts["loss"] == pytest.approx(0.4 * 2)


def test_matrices_decay_and_vectors_do_not(tmp_path: Path) -> None:
    run = toy(tmp_path, [0] * 5)
    run.take_step(0)  # the gradient is zero: what is left is 1 − lr · decay
    learner = run.learner
    assert isinstance(learner, Toy)
    assert (learner.w.item(), learner.b.item()) == (pytest.approx(0.95), 1.0)


def test_gradients_are_clipped_to_their_joint_norm(tmp_path: Path) -> None:
    run = toy(tmp_path, [255] * 5, clip=0.1)
    run.take_step(0)
    gradients = [parameter.grad.flatten() for parameter in run.learner.parameters() if parameter.grad is not None]
    assert torch.cat(gradients).norm().item() == pytest.approx(0.1, rel=1e-4)


def test_a_log_is_cut_back_to_its_checkpoint_and_keeps_its_seconds(tmp_path: Path) -> None:
    row = '{{"step": {0}, "images_seen": 4, "seconds": {1}, "parts": {{"loss": {2}}}}}\n'.format
    (tmp_path / "steps.jsonl").write_text(row(0, 2.0, 3.0) + row(1, 5.0, 2.0) + '{"step": 2, "ima')
    with pytest.raises(UserError, match=r"steps\.jsonl: not the log"):
        StepLog(tmp_path, 1, sha256_bytes(row(0, 2.5, 3.0).encode()))
    log = StepLog(tmp_path, 1, sha256_bytes(row(0, 2.0, 3.0).encode()))
    assert log.seconds_before == 2.0
    log.write(1, 8, 6.0, {"loss": 1.5})
    assert log.frame()["value"].tolist() == [3.0, 1.5]


def test_the_seconds_before_a_kill_count(tmp_path: Path) -> None:
    log = StepLog(tmp_path, 0)
    log.write(0, 5, 100.0, {"loss": 1.0})
    toy(tmp_path, [0] * 10)._save(1, log)
    assert 100 < toy(tmp_path, [0] * 10).train().seconds < 160


@pytest.mark.parametrize("name", ["state.safetensors", "steps.jsonl"])
def test_any_flipped_bit_or_cut_of_a_saved_run_is_refused_or_harmless(name: str, tmp_path: Path) -> None:
    pixels, folder = [10, 200, 30, 40, 90, 60, 70, 255, 5], tmp_path / "run"
    run = toy(folder, pixels)
    log = StepLog(folder, 0)
    log.write(0, 5, 1.0, run.take_step(0)[1])
    run._save(1, log)
    saved = {path: path.read_bytes() for path in folder.iterdir()}
    whole = toy(folder, pixels).train().log["value"].tolist()
    good, generator = saved[folder / name], np.random.default_rng(0)
    places = generator.choice(len(good), 60, replace=False)
    damaged = [good[:at] + bytes([good[at] ^ (1 << generator.integers(8))]) + good[at + 1 :] for at in places]
    damaged += [good[:at] for at in generator.choice(len(good), 10, replace=False)]
    refused = 0
    for content in damaged:
        for path, kept in saved.items():
            path.write_bytes(content if path.name == name else kept)
        said = ""
        try:
            assert toy(folder, pixels).train().log["value"].tolist() == whole
        except UserError as error:
            said = str(error)
        assert not said or name in said
        refused += bool(said)
    print(f"{name}: {len(damaged)} damages, {refused} refused, the others changed nothing")
    assert refused > 0.9 * len(damaged)
