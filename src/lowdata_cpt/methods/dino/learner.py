"""Continued DINO: each student view must predict what the EMA teacher says of the other global view.

p_t = softmax((g_t − c)/τ_t); p_s = softmax(g_s/τ_s); loss = mean over pairs of different views of −Σ p_t log p_s.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.methods.dino.config import DINO
from lowdata_cpt.methods.dino.loss import Centre, dino_loss, teacher_temperature
from lowdata_cpt.methods.dino.modules import DINOHead, cosine, ema_update
from lowdata_cpt.methods.dino.views import local_crop_size, multi_crop
from lowdata_cpt.training.learner import Context, Export, Learner, Progress, Views
from lowdata_cpt.vision.images import normalise


class DINOLearner(Learner):
    """Trains the whole backbone and a head; the teacher is a frozen copy of both that follows by EMA."""

    def __init__(self, backbone: ViT, config: DINO, context: Context) -> None:
        super().__init__(backbone, config, context)
        self.config, self.context = config, context
        head = DINOHead(backbone.width, config.prototypes, hidden=config.head_hidden, bottleneck=config.head_bottleneck)
        backbone.requires_grad_(True)
        self.student = nn.ModuleDict({"backbone": backbone, "head": head})
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.centre = Centre(config.prototypes, config.centre_momentum, config.centre_start)
        self.local_size = local_crop_size(context.image_size, backbone.patch_size, config.local_crop_size)
        self.teacher_logits: list[Tensor] = []

    def views(self, images: Tensor, generator: torch.Generator) -> Views:
        """Two global views [2, B, 3, S, S] and `local_crops` local ones [n, B, 3, s, s], DINO's augmentation."""
        crops = multi_crop(
            images,
            generator,
            self.context.image_size,
            self.local_size,
            self.config.local_crops,
            global_scale=self.config.global_scale,
            local_scale=self.config.local_scale,
        )
        sides = {"global": crops.globals, "local": crops.locals}
        return {
            side: torch.stack([normalise(view, self.context.mean, self.context.std) for view in views])
            for side, views in sides.items()
            if views
        }

    def step(self, views: Views, index: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the DINO loss; one teacher pass over the global views, one student pass per crop size."""
        config = self.config
        with torch.no_grad():
            teacher_logits = self.teacher["head"](self.cls(self.teacher, views["global"]))
            tau = teacher_temperature(
                config.teacher_temperature_start,
                config.teacher_temperature,
                config.teacher_temperature_warmup,
                progress.fraction,
            )
            self.centre.begin(teacher_logits)
            teacher_probs = self.centre.probabilities(teacher_logits, tau)
            self.teacher_logits.append(teacher_logits)
        cls = torch.cat([self.cls(self.student, views[side]) for side in ("global", "local") if side in views])
        logits = self.student["head"](cls, freeze_last=progress.fraction < config.freeze_last_layer)
        loss = dino_loss(logits, teacher_probs, config.student_temperature)
        entropy = -(teacher_probs * teacher_probs.clamp_min(1e-12).log()).sum(-1).mean()
        return loss, {"teacher_entropy": entropy}

    @staticmethod
    def cls(network: nn.ModuleDict, views: Tensor) -> Tensor:
        """Return the CLS features [V, B, D] of views [V, B, 3, s, s]."""
        features: Tensor = network["backbone"](views.flatten(0, 1)).cls
        return features.view(*views.shape[:2], -1)

    def after_step(self, progress: Progress) -> None:
        """Update the centre with this step's teacher logits, then the teacher."""
        self.centre.update(torch.cat(self.teacher_logits, dim=1))
        self.teacher_logits.clear()
        ema_update(self.teacher, self.student, cosine(self.config.ema, self.config.ema_end, progress.fraction))

    def export(self) -> Export:
        """Return the student's or the teacher's backbone; the heads are dropped."""
        backbone = (self.student if self.config.export == "student" else self.teacher)["backbone"]
        assert isinstance(backbone, ViT)
        return Export(backbone.timm_state())
