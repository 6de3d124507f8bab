"""DIET-CP: cross-entropy of the normalised CLS feature against the image's own index.

z = CLS after the final norm; logits = W z/‖z‖₂; loss = CE(logits, index, label smoothing 0.2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowdata_cpt.backbones import normalisation
from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.methods.diet_cp.config import DietCP
from lowdata_cpt.methods.diet_cp.loss import instance_loss
from lowdata_cpt.methods.diet_cp.views import one_view
from lowdata_cpt.training.learner import Context, Export, Learner, Progress, Views
from lowdata_cpt.vision.images import normalise


class DietCPLearner(Learner):
    """Trains W [N, D] and the last blocks; everything else of the backbone stays frozen."""

    def __init__(self, backbone: ViT, config: DietCP, context: Context) -> None:
        super().__init__(backbone, config, context)
        self.backbone, self.config, self.context = backbone, config, context
        backbone.requires_grad_(False)
        self.first_trained = max(0, backbone.depth - config.trained_blocks)
        for block in list(backbone.blocks)[self.first_trained :]:
            block.requires_grad_(True)
        self.head = nn.Linear(backbone.width, context.n_images, bias=False)
        own = config.normalisation == "domain"
        self.mean = context.domain_mean if own else context.mean
        self.std = context.domain_std if own else context.std

    def views(self, images: Tensor, generator: torch.Generator) -> Views:
        """One view under the statistics that the config names (see `one_view`)."""
        return {"x": normalise(one_view(images, self.context.image_size, generator), self.mean, self.std)}

    def head_only(self, progress: Progress) -> bool:
        """Whether this step belongs to the first int(5 % of the epochs), or of the steps, which train W alone."""
        if self.config.schedule.unit == "epoch":
            return progress.epoch < int(self.config.head_only * progress.epochs)
        return progress.step < int(self.config.head_only * progress.steps)

    def step(self, views: Views, index: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the smoothed cross-entropy; no gradient reaches the backbone while `head_only`."""
        with torch.no_grad():
            tokens, rope = self.backbone.embed(views["x"])
            for i in range(self.first_trained):
                tokens = self.backbone.run_block(i, tokens, rope)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.head_only(progress)):
            for i in range(self.first_trained, self.backbone.depth):
                tokens = self.backbone.run_block(i, tokens, rope)
            feature = F.normalize(self.backbone.finish(tokens).cls.float(), dim=1)
        logits = self.head(feature)
        loss = instance_loss(logits, index, self.config.label_smoothing)
        return loss, {"accuracy": (logits.argmax(1) == index).float().mean()}

    def export(self) -> Export:
        """Return the backbone; W is dropped.

        Whoever opens it normalises as its pretraining did. The source evaluates under the statistics it trains with, so
        the step from one to the other is folded into the patch embedding, which is frozen.

        Raises:
            UserError: the patch embedding has no bias to take it.
        """
        state = self.backbone.timm_state()
        if self.config.normalisation == "domain":
            state = normalisation.fold(state, (self.mean, self.std), (self.context.mean, self.context.std))
        return Export(state)
