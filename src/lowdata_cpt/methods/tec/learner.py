"""TEC: the student sees a quarter of the patches and predicts its frozen base's features and patch relations.

L = w_f · MSE(F̂, normalise(F)) on masked tokens + w_r · CE(softmax(A / τ), softmax(Â)) over the keys.
"""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor

from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.methods.mae.config import decoder_shape
from lowdata_cpt.methods.mae.modules import drop_registers, start_at_random, train_whole
from lowdata_cpt.methods.mae.views import masked_view
from lowdata_cpt.methods.tec.config import TEC
from lowdata_cpt.methods.tec.loss import base_targets, feature_loss, relation_loss
from lowdata_cpt.methods.tec.modules import Decoder, EncoderAdapter, add_input_adapter, folded_state
from lowdata_cpt.training.learner import Context, Export, Learner, Progress, Views


class TECLearner(Learner):
    """Trains the whole student (position embedding frozen), adapter and decoder; the base is a frozen copy."""

    def __init__(self, backbone: ViT, config: TEC, context: Context) -> None:
        super().__init__(backbone, config, context)
        self.backbone, self.config, self.context = backbone, config, context
        self.base = copy.deepcopy(backbone).requires_grad_(False).eval()
        self.queries, self.temperature = config.resolve_relation(backbone.name, backbone.width)
        if config.init == "random":
            start_at_random(backbone, context.seed)
        if backbone.has_cls:
            add_input_adapter(backbone, identity=config.init == "base")
        train_whole(backbone)
        width, heads = decoder_shape(backbone.width, config.decoder_width, config.decoder_heads)
        self.adapter = EncoderAdapter(backbone.width, backbone.depth, 4 * width)
        self.decoder = Decoder(
            backbone.width,
            backbone.num_heads,
            decoder_width=width,
            decoder_heads=heads,
            depth=config.decoder_depth,
            grid=backbone.grid(),
            has_cls=backbone.has_cls,
        )

    def train(self, mode: bool = True) -> Self:
        """Set the mode of everything but the base, which stays in evaluation mode."""
        super().train(mode)
        self.base.eval()
        return self

    def views(self, images: Tensor, generator: torch.Generator) -> Views:
        """MAE's one view and its mask (see `masked_view`)."""
        return masked_view(
            images,
            generator,
            self.context,
            grid=self.backbone.grid(self.context.image_size),
            mask_ratio=self.config.mask_ratio,
            crop_scale=self.config.crop_scale,
        )

    def condition(self, x: Tensor, visible: Tensor) -> Tensor:
        """Return the adapted class and visible patch tokens [B, c + K, D] of the student."""
        outputs = self.backbone.run_blocks(*self.backbone.embed(x, visible))
        outputs[-1] = self.backbone.norm(outputs[-1])
        adapted: Tensor = self.adapter([drop_registers(self.backbone, tokens) for tokens in outputs])
        return adapted

    def step(self, views: Views, index: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        """Return w_f · L_feature + w_r · L_relation and the two."""
        x, visible = views["x"], views["visible"]
        target = base_targets(self.base, x, self.queries, self.config.target_blocks)
        tokens = self.condition(x, visible)
        feature = feature_loss(self.decoder.feature(tokens, visible), target.feature, views["masked"])
        relation = relation_loss(
            self.decoder.relation(tokens, visible, target.queries), target.relation, self.temperature
        )
        loss = self.config.feature_weight * feature + self.config.relation_weight * relation
        return loss, {"feature": feature.detach(), "relation": relation.detach()}

    def export(self) -> Export:
        """Return the student with the input adapter folded into its class token; adapter, decoder, base are dropped."""
        return Export(folded_state(self.backbone))
