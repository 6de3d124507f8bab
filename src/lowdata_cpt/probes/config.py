"""Settings of the feature pass and of the three probes. Torch-free."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from lowdata_cpt.core.strict import Strict


def _ascending(grid: tuple[float, ...]) -> tuple[float, ...]:
    if list(grid) != sorted(set(grid)):
        raise ValueError("the candidates must be distinct and in ascending order")
    return grid


Grid = Annotated[
    tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...],
    Field(min_length=1),
    AfterValidator(_ascending),
]


class FeaturesConfig(Strict):
    """The one backbone pass that all probes of a domain share."""

    batch_size: int = Field(default=32, ge=1, description="Images per forward pass.")
    augmented_bank: bool = Field(
        default=False,
        description="Also pass each labelled train image once under DIET-CP's augmentation; `linear.bank: augmented` "
        "needs it.",
    )


class LinearConfig(Strict):
    """kNN on L2-normalised class tokens, and logistic regression on the same, centred and scaled to unit norm again."""

    k: int = Field(default=20, ge=1, description="Neighbours; min(k, number of train images) are used.")
    c_grid: Grid = Field(
        default=(1.0, 10.0, 100.0, 1000.0, 10_000.0),
        description="Inverse regularisation strengths, ascending; the best macro-F1 on validation is taken.",
    )
    max_iter: int = Field(default=1000, ge=1, description="L-BFGS iterations at most for each C.")
    bank: Literal["clean", "augmented"] = Field(
        default="clean",
        description="Train features: of the images as they are, or augmented once (as DIET-CP's authors do).",
    )


class DenseConfig(Strict):
    """Recipe of a linear head with batch norm on patch tokens. Defaults: V-pretraining's 20 k steps (2601.22108)."""

    steps: int = Field(default=20_000, ge=1)
    batch_size: int = Field(default=8, ge=1)
    lr_grid: Grid = Field(
        default=(3e-4, 1e-3, 3e-3),
        description="Peak learning rates, ascending; trained side by side, the best on validation is taken.",
    )
    weight_decay: float = Field(default=0.05, ge=0)
    warmup: float = Field(default=0.05, ge=0, lt=1, description="Fraction of the steps with linear warm-up.")
    clip: float = Field(default=1.0, gt=0, description="Largest gradient norm of a head.")
    train_stride: int = Field(
        default=1,
        ge=1,
        description="The training loss reads every s-th pixel of each axis, from a random offset per step; 1 reads "
        "all. Evaluation always reads every pixel.",
    )


class SegmentationConfig(DenseConfig):
    """Segmentation probe: cross-entropy; the learning rate with the best validation mIoU is taken."""


class DepthConfig(DenseConfig):
    """Depth probe: squared error in metres; the learning rate with the lowest validation RMSE is taken."""
