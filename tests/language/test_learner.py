from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from lowdata_cpt.language import designer
from lowdata_cpt.language.config import ARMS
from lowdata_cpt.language.learner import LanguageLearner, only
from lowdata_cpt.language.models import last_parameters, logits_of
from lowdata_cpt.methods.v_pretraining import value
from lowdata_cpt.training.learner import Progress
from lowdata_cpt.training.loop import InterruptedRunError
from tests.language import tiny


def rms_norm(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


def test_candidates_are_the_true_token_and_the_likeliest_others() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0], [5.0, 0.0, 1.0, 2.0]])
    assert designer.candidates(logits, torch.tensor([1, 1]), 3).tolist() == [[1, 3, 2], [1, 0, 3]]
    assert designer.candidates(logits, torch.tensor([0, 2]), 9).shape == (2, 4)  # a vocabulary smaller than K


def test_targets_are_distributions_and_alpha_stays_below_its_bound() -> None:
    q = designer.mix(torch.tensor([[0.2, 0.5, 0.3]]), torch.tensor([0.4]))
    assert torch.allclose(q, torch.tensor([[0.68, 0.2, 0.12]]))
    of = tiny.study(alpha_max=0.3).designer
    torch.manual_seed(0)
    phi = designer.Designer(of, 259, 64)
    with torch.no_grad():
        phi.gate.bias.fill_(50.0)
        ids = torch.randint(0, 259, (2, 5))
        where = torch.ones(2, 5, dtype=torch.bool)
        r, alpha = phi(ids, where, torch.randint(0, 259, (10, 4)))
    assert torch.allclose(r.sum(-1), torch.ones(10))
    assert float(alpha.max()) <= 0.3 + 1e-6


@pytest.mark.parametrize("lora", [False, True])
def test_feedback_never_touches_theta_but_through_phi(tmp_path: Path, lora: bool) -> None:
    """Permuted labels change the value; given the same φ, θ after the steps is equal to the last bit."""
    of = tiny.study(lora=lora, lr=0.0)  # φ stays as it is
    splits = tiny.splits_of(of)
    feedback = np.array(splits.feedback)
    answers = feedback >= 0
    feedback[answers] = np.random.default_rng(0).permutation(feedback[answers])
    permuted = type(splits)(**{**splits.__dict__, "feedback": feedback})
    found = []
    for number, given in enumerate((splits, permuted)):
        run = tiny.run_of(of, "v_pretraining_text", tmp_path / str(number), given)
        parts = [run.take_step(step)[1] for step in range(3)]
        found.append((parts[0]["value"], parts[0]["meta_loss"], tiny.weights(run)))
    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]
    assert tiny.equal(found[0][2], found[1][2])
    assert not tiny.equal(found[0][2], tiny.weights(tiny.run_of(of, "next_token", tmp_path / "start", splits)))


@pytest.mark.parametrize("lora", [False, True])
def test_without_alpha_it_is_next_token_prediction_bit_for_bit(tmp_path: Path, lora: bool) -> None:
    of = tiny.study(lora=lora, alpha_max=0.0)
    splits = tiny.splits_of(of)
    runs = {arm: tiny.run_of(of, arm, tmp_path / arm, splits) for arm in ARMS}
    losses = {arm: [run.take_step(step)[1]["loss"] for step in range(3)] for arm, run in runs.items()}
    plain = tiny.weights(runs["next_token"])
    for arm, run in runs.items():
        assert tiny.equal(tiny.weights(run), plain), arm
        assert losses[arm] == pytest.approx(losses["next_token"], rel=1e-6)
    with_alpha = tiny.run_of(tiny.study(lora=lora), "uniform_topk", tmp_path / "more", splits)
    for step in range(3):
        with_alpha.take_step(step)
    assert not tiny.equal(tiny.weights(with_alpha), plain)


def test_the_loss_is_over_answers_only(tmp_path: Path) -> None:
    run = tiny.run_of(tiny.study(), "next_token", tmp_path)
    learner: Any = run.learner
    stored = torch.from_numpy(run.images[:2]).long()
    views = learner.views(stored, torch.Generator())
    loss, _ = learner.step(views, torch.arange(2), None)
    ids = torch.where(stored < 0, -1 - stored, stored)
    labels = torch.where(stored >= 0, ids, -100)[:, 1:]
    wanted = F.cross_entropy(logits_of(learner.model, ids[:, :-1]).transpose(1, 2), labels)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)


@pytest.mark.parametrize("lora", [False, True])
def test_the_gradient_of_the_value_agrees_with_finite_differences(
    tmp_path: Path, lora: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """∂V/∂φ in float64 along random directions of φ."""
    # Whatever the weights are, transformers' norm rounds to float32.
    monkeypatch.setattr(LlamaRMSNorm, "forward", rms_norm)
    run = tiny.run_of(tiny.study(lora=lora), "v_pretraining_text", tmp_path)
    learner: LanguageLearner = run.learner  # type: ignore[assignment]
    learner.double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # away from the start, where gate and LoRA's B are zero
        for parameter in learner.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    views = learner.views(torch.from_numpy(run.images[:2]).long(), generator)
    last = last_parameters(learner.model, 2)
    assert 0 < len(last) < sum(1 for p in learner.model.parameters() if p.requires_grad)
    with only(learner.model, last), torch.enable_grad():
        g_down = torch.autograd.grad(learner.downstream(learner.feedback_batch(0)), last)
        found, gradients = learner.value_of(views, last, g_down)
        for trial in range(3):
            generator.manual_seed(trial)
            directions = [torch.randn(g.shape, generator=generator, dtype=torch.float64) for g in gradients]
            sides = []
            for sign in (1e-5, -1e-5):
                with torch.no_grad():
                    for p, d in zip(learner.phi.parameters(), directions, strict=True):
                        p.add_(sign * d)
                sides.append(float(learner.value_of(views, last, g_down)[0].value))
                with torch.no_grad():
                    for p, d in zip(learner.phi.parameters(), directions, strict=True):
                        p.sub_(sign * d)
            exact = float(value.dot(gradients, directions))
            assert exact == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-4)
            assert exact != 0.0
    assert float(found.value) != 0.0


def test_an_update_of_phi_raises_the_value_and_leaves_theta(tmp_path: Path) -> None:
    run = tiny.run_of(tiny.study(lr=1e-2), "v_pretraining_text", tmp_path)
    learner: Any = run.learner
    views = learner.views(torch.from_numpy(run.images[:4]).long(), torch.Generator())
    before, phi = tiny.weights(run), [p.detach().clone() for p in learner.phi.parameters()]
    values = [float(learner.meta_step(views, Progress(0, 3, 0, 1))["value"]) for _ in range(4)]
    assert values[-1] > values[0]
    assert tiny.equal(before, tiny.weights(run))
    assert any(not torch.equal(a, b) for a, b in zip(phi, learner.phi.parameters(), strict=True))
    assert all(p.grad is None for p in learner.model.parameters())


@pytest.mark.parametrize("lora", [False, True])
def test_in_the_burn_in_theta_is_next_token_predictions_and_phi_is_taught(tmp_path: Path, lora: bool) -> None:
    of = tiny.study(lora=lora, lr=1e-2, every=1, burn_in=2)
    splits = tiny.splits_of(of)
    runs = {arm: tiny.run_of(of, arm, tmp_path / arm, splits) for arm in ("next_token", "v_pretraining_text")}
    phi: nn.Module = runs["v_pretraining_text"].learner.phi  # type: ignore[union-attr,assignment]
    start = [p.detach().clone() for p in phi.parameters()]
    for step in range(2):
        parts = {arm: run.take_step(step)[1] for arm, run in runs.items()}["v_pretraining_text"]
        assert (parts["alpha"], parts["entropy"], parts["true_share"]) == (0.0, 0.0, 1.0)
        assert parts["loss"] == pytest.approx(parts["next_token_loss"], rel=1e-6)
        assert tiny.equal(*map(tiny.weights, runs.values())), step
        assert not torch.equal(start[0], next(phi.parameters()))
    parts = {arm: run.take_step(2)[1] for arm, run in runs.items()}["v_pretraining_text"]
    assert parts["alpha"] > 0
    assert not tiny.equal(*map(tiny.weights, runs.values()))


def test_the_value_of_other_targets_is_that_of_training_on_them(tmp_path: Path) -> None:
    """From ∂V/∂q: V of one-hot targets and of the uniform control's, each computed by itself as well."""
    run = tiny.run_of(tiny.study(), "v_pretraining_text", tmp_path)
    learner: Any = run.learner
    views = learner.views(torch.from_numpy(run.images[:2]).long(), torch.Generator())
    last, of = last_parameters(learner.model, 2), learner.setting.designer
    with only(learner.model, last), torch.enable_grad():
        g_down = torch.autograd.grad(learner.downstream(learner.feedback_batch(0)), last)
        found, _ = learner.value_of(views, last, g_down)
        logits = logits_of(learner.model, views["ids"])[views["target"]]
        true = views["next"][views["target"]]
        chosen = designer.candidates(logits, true, of.candidates)
        learner.arm, learner.designed = "uniform_topk", False
        r, alpha = learner.targets(views, logits, chosen, None)
        losses = F.cross_entropy(logits, true), designer.soft_cross_entropy(logits, chosen, designer.mix(r, alpha))
        wanted = [float(value.dot(g_down, torch.autograd.grad(loss, last, retain_graph=True))) for loss in losses]
    one_hot, uniform = map(float, designer.reference_values(found.gradients[0], of.alpha_max))
    assert [one_hot, uniform] == pytest.approx(wanted, rel=1e-4)
    assert one_hot != pytest.approx(uniform, rel=1e-2)
    assert float(found.value) not in (one_hot, uniform)


def test_random_feedback_changes_the_teaching_only(tmp_path: Path) -> None:
    of = tiny.study()
    splits = tiny.splits_of(of)
    runs = [tiny.run_of(of, arm, tmp_path / arm, splits) for arm in ("v_pretraining_text", "random_feedback")]
    parts = [run.take_step(0)[1] for run in runs]
    assert parts[0]["meta_loss"] == parts[1]["meta_loss"]
    assert parts[0]["value"] != parts[1]["value"]


@pytest.mark.parametrize("lora", [False, True])
def test_a_resumed_run_is_equal_to_the_last_bit(tmp_path: Path, lora: bool) -> None:
    of = tiny.study(lora=lora, training={"steps": 5})
    splits = tiny.splits_of(of)
    whole = tiny.run_of(of, "v_pretraining_text", tmp_path / "whole", splits)
    result = whole.train()
    cut = tiny.run_of(of, "v_pretraining_text", tmp_path / "cut", splits)
    taken, original = [], cut.take_step

    def stopping(step: int) -> Any:
        taken.append(step)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(step)

    cut.take_step = stopping  # type: ignore[method-assign]
    with pytest.raises(InterruptedRunError):
        cut.train()
    again = tiny.run_of(of, "v_pretraining_text", tmp_path / "cut", splits)
    resumed = again.train()
    assert taken == [0, 1, 2]
    assert tiny.equal(tiny.weights(whole), tiny.weights(again))
    assert resumed.log.equals(result.log)
    assert "realised" in set(result.log["part"])


@pytest.mark.parametrize(
    ("lora", "arm"), [(False, "v_pretraining_text"), (True, "v_pretraining_text"), (True, "next_token")]
)
def test_qwen_runs_in_bf16_on_the_cpu(tmp_path: Path, lora: bool, arm: str) -> None:
    """The paper's architecture, randomly initialised and tiny: bf16 learner, fp32 designer and value."""
    of = tiny.study(lora=lora, architecture="qwen2", training={"precision": "bf16", "accumulation": 2})
    run = tiny.run_of(of, arm, tmp_path)
    start = tiny.weights(run)
    run.train()
    moved = {name for name, w in tiny.weights(run).items() if not np.array_equal(w, start[name])}
    assert moved
    assert all("lora" in name for name in moved) == lora
    assert type(run.learner.model.config).__name__ == "Qwen2Config"  # type: ignore[union-attr]
    if arm != "next_token":
        assert {p.dtype for p in run.learner.phi.parameters()} == {torch.float32}  # type: ignore[union-attr]
