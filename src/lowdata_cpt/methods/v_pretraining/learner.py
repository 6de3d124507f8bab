"""V-pretraining, vision: DINO on designed views. Every r steps φ learns from feedback; θ only ever sees the DINO loss.

Meta step: (1) heads ← L_down on feedback-train, backbone frozen; (2) g_down = ∇_S L_down on feedback-meta, detached;
(3) V = ⟨g_down, ∇_S L_pre(c_φ(B_u))⟩ on other unlabelled images; (4) φ ← AdamW on −V + λR(φ).
Then θ takes the loop's step on L_pre of the current crops, masked by the new φ without gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowdata_cpt.backbones.vit import Features, ViT
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.methods.dino.learner import DINOLearner
from lowdata_cpt.methods.dino.loss import dino_loss, teacher_temperature
from lowdata_cpt.methods.v_pretraining import designer, value
from lowdata_cpt.methods.v_pretraining.config import VPretraining
from lowdata_cpt.methods.v_pretraining.feedback import Batch, FeedbackHeads, FeedbackPool, Part
from lowdata_cpt.training import sampling
from lowdata_cpt.training.learner import Context, Progress, Views
from lowdata_cpt.vision.augment import send

RANDOM_MASK_CELLS = 8


class VPretrainingLearner(DINOLearner):
    """The `dino` control's learner, a designer of its global views, and the heads that teach the designer."""

    compilable = False
    previous_count: Tensor
    meta_done: Tensor

    def __init__(self, backbone: ViT, config: VPretraining, context: Context) -> None:
        """Build the learner first, so that its heads start at the very weights of the control's.

        Raises:
            UserError: the designer is to be taught and there is no usable feedback.
        """
        super().__init__(backbone, config, context)
        self.recipe = config
        self.first = max(0, backbone.depth - config.last_blocks)
        net = designer.MaskDesigner(config.designer_channels, config.designer_depth, config.keep)
        # Neither φ nor the heads are the loop's: they require gradients inside the meta step only.
        self.designer = net.requires_grad_(False)
        self.designer_trainable = config.designer in ("learned", "random_feedback")
        self.meta_parts: dict[str, Tensor] = {}
        if self.designer_trainable:
            self._build_feedback(backbone.width, config, context)

    def _build_feedback(self, width: int, config: VPretraining, context: Context) -> None:
        if context.feedback is None:
            raise UserError("v_pretraining: no labelled feedback images were given; expected those of the train split")
        self.pool = FeedbackPool(
            context.feedback, context.image_size, config.feedback_train, config.feedback_meta, context.seed
        )
        self.heads = FeedbackHeads(width, self.pool).requires_grad_(False)
        self.alpha = {"segmentation": config.segmentation_weight, "depth": config.depth_weight}
        if not any(self.alpha[task] for task in self.heads.tasks):
            raise UserError(f"v_pretraining: the weights of the domain's labels ({', '.join(self.heads.tasks)}) are 0")
        self.designer_optimiser = torch.optim.AdamW(self.designer.parameters(), lr=config.designer_lr, weight_decay=0.0)
        self.head_optimiser = torch.optim.AdamW(self.heads.parameters(), lr=config.head_lr, weight_decay=0.0)
        kept = min(config.value_batch, context.batch_size)
        for side, views, size in (
            ("global", 2, context.image_size),
            ("local", config.local_crops, self.local_size),
        ):
            self.register_buffer(f"previous_{side}", torch.zeros(views, kept, 3, size, size))
        self.register_buffer("previous_count", torch.zeros((), dtype=torch.long))
        self.register_buffer("meta_done", torch.full((), -1, dtype=torch.long))
        # The two buffers' values, known without asking the device.
        self.kept, self.last_meta = 0, -1
        self.register_load_state_dict_post_hook(_read_counts)  # type: ignore[no-untyped-call]

    def own_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the AdamW of φ and of the feedback heads; none where the designer is not taught."""
        return {"designer": self.designer_optimiser, "heads": self.head_optimiser} if self.designer_trainable else {}

    def views(self, images: Tensor, generator: torch.Generator) -> Views:
        """DINO's crops, not yet masked; the random-mask control adds "mask" [2, B, 1, S, S]."""
        views = super().views(images, generator)
        if self.recipe.designer == "random_mask":
            size = self.context.image_size
            # Of a copy: the crops of a step's next micro-batch stay those of the `dino` control.
            masks = designer.random_mask(
                2 * len(images), size, self.recipe.keep, RANDOM_MASK_CELLS, generator.clone_state()
            )
            placed = send(masks.view(2, len(images), 1, size, size), views["global"].device)
            views["mask"] = placed.to(views["global"])
        return views

    def step(self, views: Views, index: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        """Update φ when its turn has come, then return the DINO loss of the masked views, which carry no gradient."""
        due = self.designer_trainable and progress.step % self.recipe.every == 0
        # Once a step, on its first micro-batch.
        if due and self.last_meta != progress.step:
            self.start_centre(views)
            self.meta_parts = self.meta_step(views, progress)
        mask, masked = self.masked(views)
        loss, parts = super().step(views | {"global": masked}, index, progress)
        parts |= {"keep": mask.mean(), "total_variation": designer.total_variation(mask)}
        if due:
            parts |= self.meta_parts
        if self.designer_trainable and (progress.step + 1) % self.recipe.every == 0:
            self._remember(views)
        return loss, parts

    @torch.no_grad()
    def masked(self, views: Views) -> tuple[Tensor, Tensor]:
        """Return the masks [2·B, 1, S, S] of the global views and what they leave of these, [2, B, 3, S, S]."""
        with torch.autocast(views["global"].device.type, enabled=False):
            flat = views["global"].flatten(0, 1)
            mask = views["mask"].flatten(0, 1) if "mask" in views else self.designer(flat)
            return mask, designer.blend(mask, flat, designer.blur(flat, self.recipe.blur)).view_as(views["global"])

    @torch.no_grad()
    def start_centre(self, views: Views) -> None:
        """Begin the centre with the whole first batch, as the control's does: the meta step sees a few images of it."""
        if not self.centre.has_started:
            self.centre.begin(self.teacher["head"](self.cls(self.teacher, self.masked(views)[1])))

    @torch.no_grad()
    def _remember(self, views: Views) -> None:
        count = min(views["global"].shape[1], self.get_buffer("previous_global").shape[1])
        for side in ("global", "local"):
            if side in views:
                self.get_buffer(f"previous_{side}")[:, :count] = views[side][:, :count]
        self.previous_count.fill_(count)
        self.kept = count

    def unlabelled(self, views: Views) -> Views:
        """Return the kept crops of the previous batch; of the current one while there is none."""
        if self.kept == 0:
            return {side: views[side][:, : self.recipe.value_batch] for side in ("global", "local") if side in views}
        kept = {side: self.get_buffer(f"previous_{side}")[:, : self.kept] for side in ("global", "local")}
        return {side: crops for side, crops in kept.items() if len(crops)}

    def meta_step(self, views: Views, progress: Progress) -> dict[str, Tensor]:
        """Update the heads and φ, and return the named parts; θ, a started centre and the random streams stay."""
        device = views["global"].device
        generator = sampling.generator(self.context.seed, "meta", progress.step)
        with (
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            torch.autocast(device.type, enabled=False),
        ):
            head = self.fit_heads(1 + (self.recipe.head_warmup if self.last_meta < 0 else 0), generator)
            g_down, losses = self.downstream_gradient(self.draw("meta", generator))
            if self.recipe.designer == "random_feedback":
                noise = [send(torch.randn(g.shape, generator=generator), g.device).to(g) for g in g_down]
                length = value.norm(g_down) / value.norm(noise)
                g_down = [length * g for g in noise]
            parts = self.update_designer(self.unlabelled(views), g_down, progress)
        self.meta_done.fill_(progress.step)
        self.last_meta = progress.step
        return (
            parts
            | {f"head_{task}": loss for task, loss in head.items()}
            | {f"meta_{task}": loss for task, loss in losses.items()}
        )

    def draw(self, part: Part, generator: torch.Generator) -> Batch:
        """Draw a labelled batch, its images normalised."""
        like = next(self.designer.parameters())
        batch = self.pool.draw(part, self.recipe.feedback_batch, generator, like)
        return batch._replace(images=self.backbone.normalise(batch.images))

    def fit_heads(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Take `count` steps of the heads on feedback-train with the backbone frozen; return the last losses."""
        losses: dict[str, Tensor] = {}
        parameters = list(self.heads.parameters())
        for _ in range(count):
            batch = self.draw("train", generator)
            with torch.no_grad():
                patches = self.backbone(batch.images).patches
            with value.only_trainable(self, parameters), torch.enable_grad():
                losses = self.heads.losses(patches, batch)
                gradients = torch.autograd.grad(torch.stack(list(losses.values())).sum(), parameters)
            _apply(self.head_optimiser, parameters, gradients)
        return {task: loss.detach() for task, loss in losses.items()}

    def downstream_gradient(self, batch: Batch) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return g_down = ∇_S (α_seg L_seg + α_dep L_dep) of a labelled batch, detached, and the two losses."""
        parameters = self.last_parameters()
        tokens, rope = self.prefix(batch.images, grad=False)
        with value.only_trainable(self, parameters), torch.enable_grad():
            losses = self.heads.losses(self.suffix(tokens, rope).patches, batch)
            g_down = torch.autograd.grad(self.weighted(losses), parameters, materialize_grads=True)
        return [g.detach() for g in g_down], {task: loss.detach() for task, loss in losses.items()}

    def update_designer(self, views: Views, g_down: list[Tensor], progress: Progress) -> dict[str, Tensor]:
        """Take one AdamW step of φ on −V + λR for unmasked crops; return V, λR and the cosine behind V."""
        parts, gradients = self.designer_gradient(views, g_down, progress)
        _apply(self.designer_optimiser, list(self.designer.parameters()), gradients)
        return parts

    def designer_gradient(
        self, views: Views, g_down: list[Tensor], progress: Progress
    ) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        """Return the parts of −V + λR for unmasked crops, and its gradient with respect to φ.

        φ → mask → global views → student's blocks before S and the whole teacher need one first-order graph; the
        local crops do not depend on φ and enter S without one.
        """
        recipe, last = self.recipe, self.last_parameters()
        phi = list(self.designer.parameters())
        flat = views["global"].flatten(0, 1)
        with value.only_trainable(self, [*phi, *last]), torch.enable_grad():
            mask = self.designer(flat)
            masked = designer.blend(mask, flat, designer.blur(flat, recipe.blur))
            tokens, rope = self.prefix(masked, grad=True)
            teacher = self.teacher["head"](self.cls(self.teacher, masked.view_as(views["global"])))
            loss = self.student_loss(views, rope, progress)
            if recipe.value_gradient == "double_backward":
                result = value.double_backward(loss, (tokens, teacher), last, g_down)
            else:
                result = value.finite_difference(loss, (tokens, teacher), last, g_down, recipe.finite_difference_step)
            sparsity, variation = designer.sparsity(mask, recipe.keep), designer.total_variation(mask)
            penalty = recipe.sparsity_weight * sparsity + recipe.variation_weight * variation
            gradients = torch.autograd.grad(
                [tokens, teacher, penalty], phi, [*(-g for g in result.gradients), torch.ones_like(penalty)]
            )
        parts = {"value": result.value, "regulariser": penalty.detach()}
        if result.norm is not None:
            parts["value_cosine"] = result.value / (result.norm * value.norm(g_down)).clamp_min(1e-30)
        return parts, gradients

    def student_loss(self, views: Views, rope: Tensor | None, progress: Progress) -> value.Loss:
        """Return L_pre as a function of what enters S from the global views, and of the teacher's logits [2, B, K]."""
        config = self.recipe
        batch = views["global"].shape[1]
        local = self.prefix(views["local"].flatten(0, 1), grad=False) if "local" in views else None
        tau = teacher_temperature(
            config.teacher_temperature_start,
            config.teacher_temperature,
            config.teacher_temperature_warmup,
            progress.fraction,
        )

        def loss(tokens: Tensor, teacher_logits: Tensor) -> Tensor:
            cls = self.suffix(tokens, rope).cls
            if local is not None:
                cls = torch.cat([cls, self.suffix(*local).cls])
            logits = self.student["head"](cls).unflatten(0, (-1, batch))
            # Unlike in the learner's own step, φ is behind the teacher's logits; the centre is held fixed.
            probabilities = F.softmax((teacher_logits.float() - self.centre.centre) / tau, dim=-1)
            return dino_loss(logits, probabilities, config.student_temperature)

        return loss

    @property
    def backbone(self) -> ViT:
        """The student's backbone."""
        backbone = self.student["backbone"]
        assert isinstance(backbone, ViT)
        return backbone

    def last_parameters(self) -> list[nn.Parameter]:
        """Return S: the parameters of the last K blocks and of the final norm."""
        backbone = self.backbone
        modules = [*list(backbone.blocks)[self.first :], backbone.norm]
        return [p for module in modules for p in module.parameters()]

    def prefix(self, images: Tensor, *, grad: bool) -> tuple[Tensor, Tensor | None]:
        """Return what enters S, [B, T, D], for normalised images, and the rotary embedding."""
        with torch.set_grad_enabled(grad):
            tokens, rope = self.backbone.embed(images)
            for i in range(self.first):
                tokens = self.backbone.run_block(i, tokens, rope)
        return tokens, rope

    def suffix(self, tokens: Tensor, rope: Tensor | None) -> Features:
        """Run S."""
        for i in range(self.first, self.backbone.depth):
            tokens = self.backbone.run_block(i, tokens, rope)
        return self.backbone.finish(tokens)

    def weighted(self, losses: dict[str, Tensor]) -> Tensor:
        """Return L_down = α_seg L_seg + α_dep L_dep."""
        return torch.stack([self.alpha[task] * loss for task, loss in losses.items()]).sum()


def _read_counts(learner: nn.Module, _: object) -> None:
    """Take over what a loaded learner has done."""
    assert isinstance(learner, VPretrainingLearner)
    learner.kept, learner.last_meta = int(learner.previous_count), int(learner.meta_done)


def _apply(optimiser: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> None:
    """Take one optimiser step with given gradients and leave none behind."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
