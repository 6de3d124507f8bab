from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.methods.diet_cp.config import DietCP
from lowdata_cpt.training.config import Optimiser, Schedule, Training
from lowdata_cpt.training.learner import Progress
from lowdata_cpt.training.loop import InterruptedRunError, Run, stop_requests
from lowdata_cpt.training.sampling import batch_index
from tests.methods.harness import make_backbone, make_context

N, BATCH, EPOCHS = 10, 4, 4
STEPS = 12
CONFIG = DietCP(head_only=0.25, optimiser=Optimiser(lr=1e-3, weight_decay=0.05, clip=1.0))


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (N, 40, 40, 3), dtype=np.uint8)


def make_run(folder: Path, config: DietCP = CONFIG, *, identity: str = "a" * 64, **training: object) -> Run:
    backbone = make_backbone("vit_tiny_patch16_224", 32)
    length = Training.model_validate({"epochs": EPOCHS, "batch_size": BATCH} | training)
    torch.manual_seed(0)
    learner = config.learner()(backbone, config, make_context(backbone, N, STEPS, BATCH))
    return Run(learner, images(), config, length, seed=3, device=torch.device("cpu"), folder=folder, identity=identity)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in run.learner.state_dict().items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], list[float]]:
    run = make_run(tmp_path_factory.mktemp("whole"))
    result = run.train()
    assert result.steps == STEPS
    assert result.images_seen == N * EPOCHS
    return weights(run), result.log.query("part == 'loss'")["value"].tolist()


class _KillAt:
    """Raises at a given step, after the loop's periodic checkpoint at that step was or was not written."""

    def __init__(self, run: Run, step: int) -> None:
        self.run, self.step, self.original = run, step, run.take_step
        run.take_step = self  # type: ignore[method-assign]

    def __call__(self, step: int) -> tuple[int, dict[str, float]]:
        if step == self.step:
            raise KeyboardInterrupt
        return self.original(step)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.integers(1, STEPS - 1), min_size=1, max_size=3), every=st.sampled_from([0.0, 1e9]))
def test_killed_at_any_step_resumes_bit_equal(
    kills: list[int], every: float, uninterrupted: tuple[dict[str, torch.Tensor], list[float]], tmp_path_factory
) -> None:
    folder = tmp_path_factory.mktemp("killed")
    for step in kills:
        run = make_run(folder)
        run.checkpoint_seconds = every
        _KillAt(run, step)
        try:
            run.train()
        except KeyboardInterrupt:
            continue
    run = make_run(folder)
    result = run.train()
    for key, value in weights(run).items():
        assert torch.equal(value, uninterrupted[0][key]), key
    losses = result.log.query("part == 'loss'")
    assert losses["step"].tolist() == list(range(STEPS))
    assert losses["value"].tolist() == uninterrupted[1]


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_the_run_goes_on_bit_equal(
    number: signal.Signals, uninterrupted: tuple[dict[str, torch.Tensor], list[float]], tmp_path: Path
) -> None:
    run = make_run(tmp_path)
    original = run.take_step

    def step(k: int) -> tuple[int, dict[str, float]]:
        if k == 5:
            os.kill(os.getpid(), number)
        return original(k)

    run.take_step = step  # type: ignore[method-assign]
    before = signal.getsignal(number)
    with pytest.raises(InterruptedRunError, match="before step 6"):
        run.train()
    assert signal.getsignal(number) is before
    assert '"step": 6' in (tmp_path / "progress.json").read_text()
    resumed = make_run(tmp_path)
    resumed.train()
    assert all(torch.equal(v, uninterrupted[0][k]) for k, v in weights(resumed).items())


def test_state_of_another_run_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.train()
    with pytest.raises(UserError, match="another run"):
        make_run(tmp_path, identity="b" * 64).train()


def test_damaged_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"state\.safetensors"):
        make_run(tmp_path).train()


def test_nan_names_the_step_and_keeps_the_state_before_it(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    original = run.learner.step

    def step(views: dict[str, torch.Tensor], index: torch.Tensor, progress: Progress):
        loss, parts = original(views, index, progress)
        return (loss * float("nan") if progress.step == 7 else loss), parts

    run.learner.step = step  # type: ignore[method-assign]
    with pytest.raises(UserError, match="step 7"):
        run.train()
    assert '"step": 7' in (tmp_path / "progress.json").read_text()
    resumed = make_run(tmp_path)
    resumed.train()
    whole = make_run(tmp_path / "whole")
    whole.train()
    assert all(torch.equal(v, weights(whole)[k]) for k, v in weights(resumed).items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(
    clip: float | None, value: float, tmp_path: Path
) -> None:
    run = make_run(
        tmp_path, CONFIG.model_copy(update={"optimiser": CONFIG.optimiser.model_copy(update={"clip": clip})})
    )
    original = run.learner.step

    def step(views: dict[str, torch.Tensor], index: torch.Tensor, progress: Progress):
        loss, parts = original(views, index, progress)
        if progress.step == 7:
            loss.register_hook(lambda gradient: gradient * value)
        return loss, parts

    run.learner.step = step  # type: ignore[method-assign]
    with pytest.raises(UserError, match="the gradient is not finite at step 7"):
        run.train()
    assert all(value.isfinite().all() for value in weights(run).values())
    assert '"step": 7' in (tmp_path / "progress.json").read_text()


def test_a_rate_that_diverges_stops_with_step_and_part(tmp_path: Path) -> None:
    wild = CONFIG.optimiser.model_copy(update={"lr": 1e30, "clip": None})
    with pytest.raises(UserError, match=r"not finite at step \d+ \(.*loss = "):
        make_run(tmp_path, CONFIG.model_copy(update={"optimiser": wild})).train()


def test_accumulation_equals_one_batch(tmp_path: Path) -> None:
    def first_loss(accumulation: int) -> float:
        run = make_run(tmp_path / str(accumulation), accumulation=accumulation, max_steps=1)
        # Views are drawn in a micro-batch's order: with them fixed, only the arithmetic may differ.
        run.learner.views = lambda x, _: {"x": torch.nn.functional.interpolate(x, size=32)}  # type: ignore[method-assign]
        return float(run.train().log.query("part == 'loss'")["value"].iloc[0])

    assert first_loss(2) == pytest.approx(first_loss(1), rel=1e-5)


@pytest.mark.parametrize("extra", [{"precision": "bf16"}, {"compile": True}])
def test_gpu_branches_run_on_the_cpu_and_stay_close(extra: dict[str, object], tmp_path: Path) -> None:
    plain = make_run(tmp_path / "plain", max_steps=2).train()
    other = make_run(tmp_path / "other", max_steps=2, **extra).train()
    first, second = (r.log.query("part == 'loss'")["value"].to_numpy() for r in (plain, other))
    np.testing.assert_allclose(first, second, rtol=0.05)


def test_every_epoch_is_a_new_permutation_with_its_last_small_batch() -> None:
    epochs = [torch.cat([batch_index(0, 3 * e + b, 10, 4) for b in range(3)]) for e in range(2)]
    assert [sorted(e.tolist()) for e in epochs] == [list(range(10))] * 2
    assert epochs[0].tolist() != epochs[1].tolist()
    assert len(batch_index(0, 2, 10, 4)) == 2


def test_frozen_weights_take_no_weight_decay(tmp_path: Path) -> None:
    run = make_run(tmp_path, CONFIG.model_copy(update={"schedule": Schedule(warmup=0.0)}))
    before = weights(run)
    run.train()
    after = weights(run)
    changed = {key for key in after if not torch.equal(before[key], after[key])}
    trained = {name for name, parameter in run.learner.named_parameters() if parameter.requires_grad}
    assert changed == trained


def test_a_run_outside_the_main_thread_takes_no_signals() -> None:
    def signals() -> list[int]:
        with stop_requests() as received:
            return received

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(signals).result() == []
