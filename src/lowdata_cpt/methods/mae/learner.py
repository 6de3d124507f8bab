"""MAE: reconstruct the normalised pixels of masked patches from the visible quarter.

L = mean over masked patches and pixels of (ŷ - y)², y = (p - mean p) / √(var p + 1e-6) for each patch p.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.methods.mae.config import MAE
from lowdata_cpt.methods.mae.masking import (
    DecoderBlocks,
    DecoderInput,
    decoder_shape,
    drop_registers,
    random_mask,
    take,
    train_whole,
    xavier,
)
from lowdata_cpt.training.learner import Context, Export, Learner, Progress, Views
from lowdata_cpt.vision import augment
from lowdata_cpt.vision.images import normalise

EPSILON = 1e-6


def patch_pixels(images: Tensor, patch_size: int) -> Tensor:
    """Cut images [B, 3, S, S] into patches [B, N, 3·p²] in row-major order."""
    return F.unfold(images, patch_size, stride=patch_size).transpose(1, 2)


def pixel_target(images: Tensor, patch_size: int) -> Tensor:
    """Return each patch normalised by its own mean and unbiased variance: [B, N, 3·p²]."""
    pixels = patch_pixels(images.float(), patch_size)
    variance, mean = torch.var_mean(pixels, dim=-1, keepdim=True)
    return (pixels - mean) / (variance + EPSILON).sqrt()


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
        """One view: RandomResizedCrop (bicubic) and flip; and the mask's visible and masked patch indices."""
        size, scale = self.context.image_size, self.config.crop_scale
        x = augment.random_resized_crop(images, size, generator, scale, mode="bicubic")
        mask = random_mask(len(x), self.backbone.grid(size) ** 2, self.config.mask_ratio, generator)
        visible, masked = (index.to(x.device) for index in mask)
        return {"x": normalise(x, self.context.mean, self.context.std), "visible": visible, "masked": masked}

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
        prediction = self.reconstruct(views["x"], views["visible"]).float()
        target = pixel_target(views["x"], self.backbone.patch_size)
        loss = F.mse_loss(take(prediction, views["masked"]), take(target, views["masked"]))
        return loss, {}

    def export(self) -> Export:
        """Return the backbone; the decoder is dropped."""
        return Export(self.backbone.timm_state())
