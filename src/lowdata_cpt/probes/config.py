"""What the probes' settings share. Torch-free."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from lowdata_cpt.core.strict import Strict


def _ascending(grid: tuple[float, ...]) -> tuple[float, ...]:
    if list(grid) != sorted(set(grid)):
        raise ValueError("the candidates must be distinct and in ascending order")
    return grid


Grid = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1e9)], ...],
    Field(min_length=1, max_length=100),
    AfterValidator(_ascending),
]
Rates = Annotated[
    tuple[Annotated[float, Field(gt=0, le=10)], ...],
    Field(min_length=1, max_length=100),
    AfterValidator(_ascending),
]
Batch = Annotated[int, Field(ge=1, le=2**16)]


class FeaturesConfig(Strict):
    """The one backbone pass that all probes of a domain share."""

    batch_size: Batch = Field(default=32, description="Images per forward pass.")


class DenseConfig(Strict):
    """Recipe of a linear head with batch norm on patch tokens. Defaults: V-pretraining's 20 k steps (2601.22108)."""

    steps: int = Field(default=20_000, ge=1, le=10**8)
    batch_size: Batch = 8
    lr_grid: Rates = Field(
        default=(3e-4, 1e-3, 3e-3),
        description="Peak learning rates, ascending; trained side by side, the best on validation is taken.",
    )
    weight_decay: float = Field(default=0.05, ge=0, le=10)
    warmup: float = Field(default=0.05, ge=0, lt=1, description="Fraction of the steps with linear warm-up.")
    clip: float = Field(default=1.0, gt=0, le=1e6, description="Largest gradient norm of a head.")
    train_stride: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="The training loss reads every s-th pixel of each axis, from a random offset per step; 1 reads "
        "all. Evaluation always reads every pixel.",
    )
    probe_seeds: int = Field(
        default=1,
        ge=1,
        le=100,
        description="Heads trained from as many seeds; what they predict is pooled, which halves a head's noise at 4.",
    )
