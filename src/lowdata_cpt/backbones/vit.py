"""One interface to every timm ViT: plain, with register tokens, with rotary embeddings, with layer scale.

Patch size, width, depth, heads, prefix tokens and normalisation are read from the model, never assumed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.vision.images import normalise


class Features(NamedTuple):
    """Output of a backbone after its final norm.

    Attributes:
        cls: [B, D] class token; the mean of the patch tokens where the model has no class token. A model that norms
            behind its pooling (timm's `fc_norm`) has no final norm: its mean of the patch tokens, normed.
        patches: [B, N, D] patch tokens in row-major order; those of such a model by the same norm.
    """

    cls: Tensor
    patches: Tensor


class ViT(nn.Module):
    """A timm vision transformer without classifier, square inputs of any size divisible by its patch size."""

    def __init__(self, name: str, *, pretrained: bool = False, image_size: int = 224) -> None:
        """Create timm model `name`.

        Raises:
            UserError: timm has no ViT of that name, or the image size does not divide into patches.
        """
        super().__init__()
        self.name, self.image_size = name, image_size
        try:
            model: Any = timm.create_model(name, pretrained=pretrained, num_classes=0, dynamic_img_size=True)
        except (RuntimeError, TypeError) as error:
            raise UserError(f"backbone model {name!r}: timm cannot create it as a ViT ({error})") from None
        if not isinstance(model, VisionTransformer | Eva):
            raise UserError(f"backbone model {name!r} is a {type(model).__name__}; expected one of timm's ViTs")
        self._read(model)

    def _read(self, model: Any) -> None:
        """Take every geometric fact from the model (typed Any: timm's attributes have no useful types)."""
        self.model = model
        patch_height, patch_width = model.patch_embed.patch_size
        if patch_height != patch_width or self.image_size % patch_height:
            raise UserError(
                f"image_size {self.image_size} is not a multiple of the patch size {patch_height} of {self.name!r}"
            )
        self.patch_size: int = patch_height
        self.width: int = model.embed_dim
        self.depth = len(model.blocks)
        self.num_heads: int = model.blocks[0].attn.num_heads
        self.num_prefix_tokens: int = model.num_prefix_tokens
        self.has_cls = model.cls_token is not None
        config = model.pretrained_cfg
        self.mean: tuple[float, ...] = tuple(config.get("mean", (0.485, 0.456, 0.406)))
        self.std: tuple[float, ...] = tuple(config.get("std", (0.229, 0.224, 0.225)))

    @property
    def blocks(self) -> nn.Sequential:
        """The transformer blocks (a property: registered twice they would be saved twice)."""
        return self.model.blocks  # type: ignore[no-any-return]

    @property
    def norm(self) -> nn.Module:
        """The final norm: timm's `fc_norm` where the model norms behind its pooling."""
        behind = self.model.fc_norm
        return self.model.norm if isinstance(behind, nn.Identity) else behind  # type: ignore[no-any-return]

    def grid(self, image_size: int | None = None) -> int:
        """Return the number of patches along one side."""
        return (image_size or self.image_size) // self.patch_size

    def embed(self, x: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return what enters the first block, and the rotary embedding the blocks need.

        Args:
            x: [B, 3, S, S], normalised.
            keep: [B, K] indices of the patch tokens to keep; all when None.

        Returns:
            tokens [B, prefix + N or K, D]; rotary embedding or None.
        """
        model = self.model
        embedded = model._pos_embed(model.patch_embed(x))
        tokens, rope = embedded if isinstance(embedded, tuple) else (embedded, None)
        if keep is not None:
            prefix, patches = tokens[:, : self.num_prefix_tokens], tokens[:, self.num_prefix_tokens :]
            patches = patches.gather(1, keep.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
            tokens = torch.cat([prefix, patches], dim=1)
            if rope is not None:
                rope = _keep_rope(rope, keep)
        return model.norm_pre(tokens), rope

    def run_blocks(
        self, tokens: Tensor, rope: Tensor | None, *, first: int = 0, last: int | None = None
    ) -> list[Tensor]:
        """Run blocks first..last (exclusive) and return each one's output [B, T, D], before the final norm."""
        outputs = []
        for i in range(first, self.depth if last is None else last):
            tokens = self.run_block(i, tokens, rope)
            outputs.append(tokens)
        return outputs

    def run_block(self, i: int, tokens: Tensor, rope: Tensor | None) -> Tensor:
        """Run block `i` on tokens [B, T, D]."""
        if rope is None:
            return self.blocks[i](tokens)  # type: ignore[no-any-return]
        mixed = getattr(self.model, "rope_mixed", False)
        return self.blocks[i](tokens, rope=rope[i] if mixed else rope)  # type: ignore[no-any-return]

    def finish(self, tokens: Tensor) -> Features:
        """Apply the final norm to tokens [B, T, D] and split class and patch tokens."""
        tokens = self.model.norm(tokens)
        patches = tokens[:, self.num_prefix_tokens :]
        if self.norm is not self.model.norm:
            return Features(self.norm(patches.mean(1)), self.norm(patches))
        return Features(tokens[:, 0] if self.has_cls else patches.mean(1), patches)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Features:
        """Return the features of normalised images [B, 3, S, S] (see `embed` for `keep`)."""
        tokens, rope = self.embed(x, keep)
        for i in range(self.depth):
            tokens = self.run_block(i, tokens, rope)
        return self.finish(tokens)

    def normalise(self, x: Tensor) -> Tensor:
        """Normalise images in [0, 1] with the backbone's own mean and standard deviation."""
        return normalise(x, self.mean, self.std)

    def timm_state(self) -> dict[str, Tensor]:
        """Return a state dict that `timm.create_model(name, num_classes=0, checkpoint_path=…)` opens."""
        return {key: value.detach().cpu().contiguous() for key, value in self.model.state_dict().items()}

    @torch.no_grad()
    def randomise(self, seed: int) -> None:
        """Re-initialise every weight from `seed` with the model's own initialiser."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = timm.create_model(self.name, pretrained=False, num_classes=0, dynamic_img_size=True)
        self.model.load_state_dict(fresh.state_dict())


def _keep_rope(rope: Tensor, keep: Tensor) -> Tensor:
    """Select the kept tokens' rows: [N, d] -> [B, 1, K, d]; mixed [L, H, N, d] -> [L, B, H, K, d]."""
    if rope.ndim == 2:
        return rope[keep].unsqueeze(1)
    batch, kept = keep.shape
    layers, heads, _, width = rope.shape
    index = keep.view(1, batch, 1, kept, 1).expand(layers, batch, heads, kept, width)
    return rope.unsqueeze(1).expand(layers, batch, heads, -1, width).gather(3, index)
