"""The arms as one learner of the training loop: next-token prediction, or cross-entropy to soft targets.

Of `v_pretraining_text` every r steps: (1) g_down = ∇_S of the feedback's mean answer NLL, detached; (2) V = ⟨g_down,
∇_S L_pre⟩ through q; (3) φ ← AdamW on −V. Then θ takes the loop's step on the detached q (during burn-in on the true
token): feedback never touches θ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lowdata_cpt.language import config, designer
from lowdata_cpt.language.models import last_parameters, logits_of, whole
from lowdata_cpt.language.tokens import split
from lowdata_cpt.methods.v_pretraining import value
from lowdata_cpt.training import sampling
from lowdata_cpt.training.learner import Export, Progress, Views
from lowdata_cpt.training.learner import Learner as LoopLearner

DESIGNED = ("v_pretraining_text", "random_feedback")


@dataclass(frozen=True)
class Setting:
    """What an arm may know of its run: settings of φ, the feedback's solved problems, seed, and the learner's rate."""

    arm: config.Arm
    designer: config.Designer
    feedback: NDArray[np.int32]
    window: int
    vocabulary: int
    seed: int


@contextmanager
def only(module: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Let gradients reach `parameters` alone, without dropout; flags and mode are put back."""
    training = module.training
    module.eval()
    try:
        with value.only_trainable(module, parameters):
            yield
    finally:
        module.train(training)


class LanguageLearner(LoopLearner):
    """A causal language model, continued by one arm; a window is what the loop calls an image."""

    compilable = False
    fall: Tensor
    before: Tensor

    def __init__(self, model: nn.Module, setting: Setting) -> None:
        """Take the model as it is to be trained (adapted or not); φ is drawn from torch's global generator."""
        nn.Module.__init__(self)
        self.model, self.setting, self.arm = model, setting, setting.arm
        self.designed = self.arm in DESIGNED
        self.meta_parts: dict[str, Tensor] = {}
        self.last_meta = -1
        if self.designed:
            of = setting.designer
            # φ is not the loop's: it requires gradients in its own update only.
            self.phi = designer.Designer(of, setting.vocabulary, setting.window).requires_grad_(False)
            self.phi_optimiser = torch.optim.AdamW(self.phi.parameters(), lr=of.lr, weight_decay=0.0)
            self.register_buffer("fall", torch.zeros(()))
            self.register_buffer("before", torch.zeros(()))

    def own_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the AdamW of φ."""
        return {"designer": self.phi_optimiser} if self.designed else {}

    def views(self, images: Tensor, generator: torch.Generator) -> Views:
        """Return contexts, next tokens and which of them are targets, [B, L] each, of windows int64 [B, L + 1]."""
        ids, target = split(images)
        return {"ids": ids[:, :-1], "next": ids[:, 1:], "target": target[:, 1:]}

    def step(self, views: Views, index: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        """Update φ when its turn has come, then return the loss against detached targets."""
        due = self.designed and progress.step % self.setting.designer.every == 0
        if due and self.last_meta != progress.step:
            self.last_meta = progress.step
            self.meta_parts = self.meta_step(views, progress)
            if progress.step:
                self.meta_parts["realised"] = self.fall.clone()
        logits = logits_of(self.model, views["ids"])[views["target"]]
        true = views["next"][views["target"]]
        if self.arm == "next_token":
            return F.cross_entropy(logits.float(), true), {}
        with torch.no_grad():
            chosen = designer.candidates(logits, true, self.setting.designer.candidates)
            r, alpha = self.targets(views, logits, chosen, progress)
            q = designer.mix(r, alpha)
        parts = {"alpha": alpha.mean(), "entropy": designer.entropy(q), "true_share": q[:, 0].mean()}
        loss = designer.soft_cross_entropy(logits, chosen, q)
        return loss, parts | {"next_token_loss": F.cross_entropy(logits.detach().float(), true)} | (
            self.meta_parts if due else {}
        )

    def targets(self, views: Views, logits: Tensor, chosen: Tensor, progress: Progress) -> tuple[Tensor, Tensor]:
        """Return r [M, K] and α [M] of the arm; the controls' α is the gate's start, half of α_max, burn-in's is 0."""
        burning = self.designed and progress.step < self.setting.designer.burn_in
        if self.designed and not burning:
            r, alpha = self.phi(views["ids"], views["target"], chosen)
            return r, alpha
        own = logits.detach().float().gather(-1, chosen)
        r = torch.softmax(own if self.arm == "self_distillation" else torch.zeros_like(own), dim=-1)
        return r, torch.full_like(r[:, 0], 0.0 if burning else self.setting.designer.alpha_max / 2)

    def feedback_batch(self, step: int) -> Tensor:
        """Return the solved problems of a step's feedback, as they are stored: int64 [B, L]."""
        generator = sampling.generator(self.setting.seed, "feedback", step)
        order = torch.randperm(len(self.setting.feedback), generator=generator)
        rows = self.setting.feedback[order[: self.setting.designer.feedback_batch].numpy()]
        return torch.from_numpy(np.asarray(rows)).long().to(next(self.model.parameters()).device)

    def downstream(self, batch: Tensor) -> Tensor:
        """Return L_down: the mean NLL of the answers' tokens."""
        views = self.views(batch, torch.Generator())
        return F.cross_entropy(logits_of(self.model, views["ids"])[views["target"]], views["next"][views["target"]])

    def meta_step(self, views: Views, progress: Progress) -> dict[str, Tensor]:
        """Update φ and return the named parts; θ and the random streams stay."""
        of, device = self.setting.designer, views["ids"].device
        last = last_parameters(self.model, of.last_layers)
        some = {name: tensor[: of.value_batch] for name, tensor in views.items()}
        with (
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            torch.autocast(device.type, enabled=False),
            only(self.model, last),
            torch.enable_grad(),
        ):
            before = self.downstream(self.feedback_batch(progress.step))
            g_down = list(torch.autograd.grad(before, last))
            if self.arm == "random_feedback":
                noise = [torch.randn_like(g) for g in g_down]
                g_down = [value.norm(g_down) / value.norm(noise) * g for g in noise]
            found, gradients = self.value_of(some, last, g_down)
        self.phi_optimiser.zero_grad(set_to_none=True)
        for parameter, gradient in zip(self.phi.parameters(), gradients, strict=True):
            parameter.grad = -gradient
        self.phi_optimiser.step()
        self.before.copy_(before.detach())
        assert found.norm is not None
        one_hot, uniform = designer.reference_values(found.gradients[0], of.alpha_max)
        return {
            "value": found.value,
            "value_one_hot": one_hot,
            "value_uniform": uniform,
            "meta_loss": before.detach(),
            "cosine": found.value / (value.norm(g_down) * found.norm).clamp_min(1e-30),
        }

    def value_of(
        self, views: Views, last: Sequence[nn.Parameter], g_down: Sequence[Tensor]
    ) -> tuple[value.Value, list[Tensor]]:
        """Return V with ∂V/∂q, and ∂V/∂φ: double backward over S, then an ordinary backward pass from q to φ."""
        with torch.no_grad():
            logits = logits_of(self.model, views["ids"])[views["target"]]
            chosen = designer.candidates(logits, views["next"][views["target"]], self.setting.designer.candidates)
        weights = list(self.phi.parameters())
        try:
            self.phi.requires_grad_(True)
            q = designer.mix(*self.phi(views["ids"], views["target"], chosen))

            def loss(targets: Tensor) -> Tensor:
                return designer.soft_cross_entropy(
                    logits_of(self.model, views["ids"])[views["target"]], chosen, targets
                )

            found = value.double_backward(loss, [q], last, g_down)
            gradients = torch.autograd.grad(q, weights, found.gradients[0], materialize_grads=True)
        finally:
            self.phi.requires_grad_(False)
        return found, list(gradients)

    @torch.no_grad()
    def after_step(self, progress: Progress) -> None:
        """After a step that followed an update of φ, measure how far L_down of its feedback fell."""
        if self.designed and progress.step % self.setting.designer.every == 0:
            with only(self.model, ()):
                self.fall.copy_(self.before - self.downstream(self.feedback_batch(progress.step)))

    def export(self) -> Export:
        """Return the weights on the CPU, adapters folded in, as `models.save_model` takes them."""
        return Export(whole(self.model))
