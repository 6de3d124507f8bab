"""MAE: reconstruct the normalised pixels of masked patches from the visible quarter."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.methods.mae.config import MAE, decoder_shape
from lowdata_cpt.methods.mae.loss import pixel_loss
from lowdata_cpt.methods.mae.modules import DecoderBlocks, DecoderInput, drop_registers, train_whole, xavier
from lowdata_cpt.methods.mae.views import masked_view
from lowdata_cpt.training.learner import Context, Export, Learner, Progress, Views


class MAELearner(Learner):
    """Trains the whole backbone (position embedding frozen) and a light decoder, which is dropped at export."""

    def __init__(self, backbone: ViT, config: MAE, context: Context) -> None:
        super().__init__(backbone, config, context)
        self.backbone, self.config, self.context = backbone, config, context
        train_whole(backbone)
        width, heads = decoder_shape(backbone.width, config.decoder_width, config.decoder_heads)
        self.decoder_input = DecoderInput(backbone.width, width)
        self.decoder = DecoderBlocks(width, heads, config.decoder_depth, backbone.grid(), has_cls=backbone.has_cls)
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.head = nn.Sequential(norm(width), nn.Linear(width, 3 * backbone.patch_size**2))
        self.head.apply(xavier)

    def views(self, images: Tensor, generator: torch.Generator) -> Views:
        """One view and its mask (see `masked_view`)."""
        return masked_view(
            images,
            generator,
            self.context,
            grid=self.backbone.grid(self.context.image_size),
            mask_ratio=self.config.mask_ratio,
            crop_scale=self.config.crop_scale,
        )

    def reconstruct(self, x: Tensor, visible: Tensor) -> Tensor:
        """Predict the normalised pixels of every patch, [B, N, 3·p²], from the visible ones [B, K]."""
        tokens, rope = self.backbone.embed(x, visible)
        for i in range(self.backbone.depth):
            tokens = self.backbone.run_block(i, tokens, rope)
        tokens = drop_registers(self.backbone, self.backbone.norm(tokens))
        patches = self.backbone.grid(x.shape[-1]) ** 2
        decoded: Tensor = self.head(self.decoder(self.decoder_input(tokens, visible, patches)))
        return decoded[:, -patches:]

    def step(self, views: Views, index: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean squared error over masked patches."""
        prediction = self.reconstruct(views["x"], views["visible"])
        return pixel_loss(prediction, views["x"], views["masked"], self.backbone.patch_size), {}

    def export(self) -> Export:
        """Return the backbone; the decoder is dropped."""
        return Export(self.backbone.timm_state())
