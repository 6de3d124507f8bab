"""How long and how precisely a cell is trained. Torch-free."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from lowdata_cpt.config.base import Strict


class Training(Strict):
    """Length and numerics of every training run. Whole epochs are run and the last partial batch is kept."""

    images_seen: int | None = Field(
        default=None, ge=1, description="Target number of images drawn; rounded to whole epochs. Or give `epochs`."
    )
    epochs: int | None = Field(
        default=None, ge=1, description="Number of passes over the subset. Or give `images_seen`."
    )
    batch_size: int = Field(default=32, ge=1)
    accumulation: int = Field(default=1, ge=1, description="Micro-batches per optimiser step.")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="bf16 autocasts the forward pass.")
    compile: bool = Field(default=False, description="torch.compile the transformer blocks.")
    max_steps: int | None = Field(default=None, ge=1, description="Stop after this many steps (self-tests only).")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.images_seen is None) == (self.epochs is None):
            raise ValueError("give exactly one of `images_seen` and `epochs`")
        return self

    def length(self, n_images: int) -> tuple[int, int]:
        """Return (epochs, steps per epoch) for a subset of `n_images`."""
        epochs = self.epochs or max(1, round((self.images_seen or 0) / n_images))
        return epochs, math.ceil(n_images / self.batch_size)
