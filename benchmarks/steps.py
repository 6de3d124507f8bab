"""Training steps: DIET-CP without graph in frozen blocks, DINO beside others', the rest beside their FLOPs."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Case, Flops, matmuls, near
from benchmarks.subjects import MIDDLE, backward, configured, forget, gradient, images_of, make, views_of
from lowdata_cpt.methods.dino.learner import DINOLearner
from lowdata_cpt.methods.dino.modules import DINOHead, cosine
from lowdata_cpt.training.learner import Progress, Views

MODEL, SIZE, BATCH = "vit_small_patch16_224", 96, 8


def shape(small: bool) -> tuple[str, int, int]:
    """Return model, image size and batch."""
    return ("vit_tiny_patch16_224", 32, 2) if small else (MODEL, SIZE, BATCH)


def cases(small: bool) -> Iterator[Case]:
    """Yield the rows."""
    yield from diet(*shape(small))
    yield from dino(*shape(small), heads={"prototypes": 64, "head_hidden": 32} if small else {})
    for method in ("tec", "glare", "v_pretraining"):
        yield beside_flops(method, *shape(small), heads={"prototypes": 64, "head_hidden": 32} if small else {})
    yield from meta_step(*shape(small))


def diet(model: str, size: int, batch: int) -> Iterator[Case]:
    """DIET-CP's forward and backward; the reference differentiates the whole backbone, as a plain script does."""
    ours, whole = (make(configured("diet_cp"), model, size, batch) for _ in range(2))
    views, index = views_of(ours, images_of(batch, size)), torch.arange(batch)
    whole.requires_grad_(True)
    whole.first_trained = 0  # type: ignore[assignment]
    trained = [name for name, p in ours.named_parameters() if p.requires_grad]

    def parity(a: Tensor, b: Tensor) -> str:
        of_ours, of_whole = (
            torch.cat([dict(learner.named_parameters())[name].grad.flatten() for name in trained])  # type: ignore[union-attr]
            for learner in (ours, whole)
        )
        return f"{near(a, b, 1e-6, 'loss')}, {near(of_ours, of_whole, 1e-5, 'gradients of what is trained')}"

    yield Case(
        "DIET-CP step, frozen blocks without graph",
        "the same step with the full graph",
        2.4,
        lambda: backward(ours, views, index),
        lambda: backward(whole, views, index),
        parity,
    )


def dino(model: str, size: int, batch: int, heads: dict[str, Any]) -> Iterator[Case]:
    """DINO's forward, backward, AdamW and EMA; only those libraries that are installed."""
    views = views_of(make(configured("dino", **heads), model, size, batch), images_of(batch, size))
    for name in ("lightly", "stable-pretraining"):
        ours = make(configured("dino", **heads), model, size, batch)
        assert isinstance(ours, DINOLearner)
        try:
            other = (Lightly if name == "lightly" else StablePretraining)(ours)
        except ImportError:
            continue
        optimiser = torch.optim.AdamW(ours.student.parameters(), lr=1e-6, fused=True)

        def step(ours: DINOLearner = ours, optimiser: torch.optim.Optimizer = optimiser) -> Tensor:
            optimiser.zero_grad(set_to_none=True)
            loss, _ = ours.step(views, torch.arange(batch), MIDDLE)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            ours.after_step(MIDDLE)
            return loss.detach()

        yield Case(
            f"DINO step beside {name}'s",
            f"{name}'s head and loss round the same timm backbone, the same crops",
            1.0,
            step,
            lambda other=other: other.step(views),
            lambda a, b: near(a, b, 1e-5, "loss of the first step"),
        )


class Lightly:
    """A DINO step as lightly's documentation writes it, from a learner's weights."""

    def __init__(self, learner: DINOLearner) -> None:
        from lightly.loss import DINOLoss

        config = learner.config
        self.student = nn.ModuleDict(
            {"backbone": copy.deepcopy(learner.student["backbone"].model), "head": self.head(learner)}  # type: ignore[union-attr]
        )
        self.teacher = nn.ModuleDict(
            {
                "backbone": copy.deepcopy(self.student["backbone"]),
                "head": self.head(learner),
            }  # weight_norm: no deepcopy
        ).requires_grad_(False)
        self.loss: Any = DINOLoss(
            config.prototypes,
            warmup_teacher_temp=config.teacher_temperature,
            teacher_temp=config.teacher_temperature,
            student_temp=config.student_temperature,
            center_momentum=config.centre_momentum,
        )
        self.momentum = cosine(config.ema, config.ema_end, MIDDLE.fraction)
        self.optimiser = torch.optim.AdamW(
            [p for p in self.student.parameters() if p.requires_grad], lr=1e-6, fused=True
        )

    def head(self, learner: DINOLearner) -> nn.Module:
        """Return lightly's head with our head's weights."""
        from lightly.models.modules import DINOProjectionHead

        ours = learner.student["head"]
        assert isinstance(ours, DINOHead)
        config = learner.config
        head = DINOProjectionHead(
            ours.mlp[0].in_features,
            config.head_hidden,
            config.head_bottleneck,
            config.prototypes,  # type: ignore[arg-type]
        )
        theirs = [module for module in head.layers if isinstance(module, nn.Linear)]
        with torch.no_grad():
            for mine, their in zip((m for m in ours.mlp if isinstance(m, nn.Linear)), theirs, strict=True):
                their.load_state_dict(mine.state_dict())
            head.last_layer.weight_v.copy_(ours.last.weight)
        return head

    @staticmethod
    def logits(network: nn.ModuleDict, view: Tensor) -> Tensor:
        """Return the head's output of one view, as its documentation calls it."""
        found: Tensor = network["head"](network["backbone"](view))
        return found

    def criterion(self, teacher: list[Tensor], student: list[Tensor]) -> Tensor:
        """Return the loss."""
        found: Tensor = self.loss(teacher, student)
        return found

    def step(self, views: Views) -> Tensor:
        """Take one step and return its loss."""
        from lightly.models.utils import update_momentum

        self.optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            teacher = [self.logits(self.teacher, view) for view in views["global"]]
        student = [self.logits(self.student, view) for side in ("global", "local") for view in views[side]]
        loss = self.criterion(teacher, student)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        update_momentum(self.student, self.teacher, m=self.momentum)
        return loss.detach()


class StablePretraining(Lightly):
    """The same with stable-pretraining's loss, teacher and update of its centre."""

    def __init__(self, learner: DINOLearner) -> None:
        from stable_pretraining.losses import DINOv1Loss

        super().__init__(learner)
        config = learner.config
        self.temperature = config.teacher_temperature
        self.loss = DINOv1Loss(config.student_temperature, config.centre_momentum)

    def criterion(self, teacher: list[Tensor], student: list[Tensor]) -> Tensor:
        """Return the loss; its centre starts at the first batch, ours at zero, so the first call sets it to zero."""
        logits = torch.stack(teacher)
        if self.loss.center is None:
            self.loss.center = torch.zeros(1, logits.shape[-1])
        found = self.loss(torch.stack(student), self.loss.softmax_center_teacher(logits, self.temperature))
        self.loss.update_center(logits)
        return found  # type: ignore[no-any-return]


def beside_flops(method: str, model: str, size: int, batch: int, heads: dict[str, Any]) -> Case:
    """A step's forward and backward beside as many operations in plain matrix products: the ratio is the share of peak.

    As many as PyTorch counts in it, heads, decoders and second derivatives included. V-pretraining's are four steps, of
    which one comes with a meta step, as in training.
    """
    config = configured(method, **heads)
    learner = make(config, model, size, batch)
    views, index = views_of(learner, images_of(batch, size)), torch.arange(batch)
    every = getattr(config, "every", 1)
    count = itertools.count(every * 10)  # of steps: a meta step is not done twice for the same one

    def steps() -> Tensor:
        for step in itertools.islice(count, every):
            torch.manual_seed(step)
            learner.zero_grad(set_to_none=True)
            loss, _ = learner.step(views, index, Progress(step, 10**6, 1, 10))
            loss.backward()  # type: ignore[no-untyped-call]
            forget(learner)
        return loss.detach()

    with Flops() as counted:
        steps()
    flops = counted.total

    def parity(loss: Tensor, _: None) -> str:
        assert loss.isfinite()
        assert gradient(learner).isfinite().all()
        return f"{flops / 1e9:.0f} GFLOP on either side"

    return Case(
        f"{config.facts.label} step", "its matrix products at the peak of the same run", 0.6, steps,
        matmuls(flops), parity,
    )  # fmt: skip


def meta_step(model: str, size: int, batch: int) -> Iterator[Case]:
    """The designer's gradient by finite differences (ours) and by double backward (the source's, the default)."""
    learners = {
        kind: make(configured("v_pretraining", value_gradient=kind, prototypes=1024), model, size, batch)
        for kind in ("finite_difference", "double_backward")
    }
    exact: Any = learners["double_backward"]
    views = views_of(exact, images_of(batch, size))
    g_down, _ = exact.downstream_gradient(exact.draw("meta", torch.Generator().manual_seed(0)))

    def found(kind: str) -> Tensor:
        learner: Any = learners[kind]
        return torch.cat([g.flatten() for g in learner.designer_gradient(views, g_down, MIDDLE)[1]])

    yield Case(
        "V-pretraining meta step, finite difference",
        "double backward (the default: exact)",
        None,
        lambda: found("finite_difference"),
        lambda: found("double_backward"),
        lambda a, b: near(a, b, 1e-2, "direction of the designer's gradient"),
    )
