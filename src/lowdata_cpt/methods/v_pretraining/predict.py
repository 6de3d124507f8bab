"""How well V predicts: expected against measured fall of the downstream loss after one SSL step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lowdata_cpt.methods.dino.learner import DINOLearner
from lowdata_cpt.methods.v_pretraining import designer, value
from lowdata_cpt.methods.v_pretraining.learner import VPretrainingLearner
from lowdata_cpt.training import sampling
from lowdata_cpt.training.learner import Progress


class Arm(NamedTuple):
    """One kind of step.

    Attributes:
        update: "sgd": −lr·g_pre; "adamw": the first step of a fresh AdamW, about −lr·sign(g_pre).
        scope: what is moved: S alone, or all of θ as in training. V knows S and is first order, so with "sgd" on S
            both numbers differ by higher orders only; each of "adamw" and "all" takes that away.
        lr: length of the step.
    """

    update: Literal["sgd", "adamw"]
    scope: Literal["last_blocks", "all"]
    lr: float


ARMS = (
    Arm("sgd", "last_blocks", 1e-3),
    Arm("adamw", "last_blocks", 1e-5),
    Arm("sgd", "all", 1e-3),
    Arm("adamw", "all", 1e-5),
)


def predicted_vs_realised(
    learner: VPretrainingLearner,
    images: Tensor,
    *,
    arms: Sequence[Arm] = ARMS,
    count: int,
    batch_size: int,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Compare lr·V with the fall of L_down over one step on L_pre, `count` times from the same θ.

    Each time other unlabelled images are drawn, masked by the learner's φ, and another labelled meta batch, on which
    L_down is measured before and after; all arms see the same draws. θ is put back bit for bit. Train the heads first
    (`fit_heads`).

    Args:
        learner: a learner with feedback.
        images: unlabelled [N, 3, H, W] in [0, 1].
        arms: the kinds of step, A of them.
        count: n, number of pairs.
        batch_size: unlabelled images per step.
        seed: of the draws.

    Returns:
        predicted [A, n] and realised [A, n] fall, float64 on the CPU.
    """
    recipe, last = learner.recipe, learner.last_parameters()
    trained = [p for p in learner.student.parameters() if p.requires_grad]
    in_last = {id(p) for p in last}
    saved = [p.detach().clone() for p in trained]
    predicted = torch.zeros(len(arms), count, dtype=torch.float64)
    realised = torch.zeros_like(predicted)
    for trial in range(count):
        generator = sampling.generator(seed, "prediction", trial)
        chosen = torch.randperm(len(images), generator=generator)[:batch_size]
        views = learner.views(images[chosen], generator)
        labelled = learner.draw("meta", generator)
        g_down, before = learner.downstream_gradient(labelled)
        with torch.no_grad():
            flat = views["global"].flatten(0, 1)
            mask = views["mask"].flatten(0, 1) if "mask" in views else learner.designer(flat)
            masked = designer.blend(mask, flat, designer.blur(flat, recipe.blur)).view_as(views["global"])
        with value.only_trainable(learner, trained), torch.enable_grad():
            loss, _ = DINOLearner.step(learner, views | {"global": masked}, chosen, Progress(1, 2, 1, 2))
            gradients = torch.autograd.grad(loss, trained, materialize_grads=True)
        learner.teacher_logits.clear()
        by_id = {id(p): g for p, g in zip(trained, gradients, strict=True)}
        predicted[:, trial] = float(value.dot(g_down, [by_id[id(p)] for p in last]))
        for number, arm in enumerate(arms):
            with torch.no_grad():
                for parameter, gradient in zip(trained, gradients, strict=True):
                    if arm.scope == "all" or id(parameter) in in_last:
                        # AdamW's first step: both moments are bias-corrected, which leaves g / (|g| + eps).
                        direction = gradient / (gradient.abs() + 1e-8) if arm.update == "adamw" else gradient
                        parameter.sub_(arm.lr * direction)
                after = learner.heads.losses(learner.backbone(labelled.images).patches, labelled)
                realised[number, trial] = float(learner.weighted(before)) - float(learner.weighted(after))
                for parameter, start in zip(trained, saved, strict=True):
                    parameter.copy_(start)
    return predicted * torch.tensor([arm.lr for arm in arms], dtype=torch.float64)[:, None], realised
