"""V-pretraining's recipe (vision) and facts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from lowdata_cpt.methods.base import Blocks, Weight, Width
from lowdata_cpt.methods.dino.config import DINO
from lowdata_cpt.methods.facts import Facts, Precondition, SourceBudget
from lowdata_cpt.training.config import Batch, Optimiser, Rate, Schedule


class VPretraining(DINO):
    """V-pretraining (arXiv 2601.22108): DINO on views designed by a U-Net that downstream feedback teaches.

    The learner's recipe is `dino`'s, field by field; the defaults are the paper's ViT-B on ADE20K.
    """

    learner_path: ClassVar[str | None] = "lowdata_cpt.methods.v_pretraining.learner:VPretrainingLearner"
    needs_feedback: ClassVar[bool] = True
    facts: ClassVar[Facts] = Facts(
        label="V-pretraining",
        color="#AA4499",
        marker="D",
        trains="the whole backbone, by DINO alone; head, designer of views and feedback heads are dropped",
        control="dino",
        paper="Ke and Fanti 2026, arXiv 2601.22108",
        acts=(Precondition("value", positive=True),),
        source_budget=SourceBudget(20_000 * 256, 20_000, 4.15e-6),  # ADE20K, ViT-B (appendix G)
    )

    method: Literal["v_pretraining"] = "v_pretraining"  # type: ignore[assignment]
    optimiser: Optimiser = Optimiser(lr=4.15e-6, weight_decay=0.04, clip=1.0)
    schedule: Schedule = Schedule(warmup=0.05)
    designer: Literal["learned", "random_mask", "frozen", "random_feedback"] = Field(
        default="learned",
        description="Controls: random masks of the keep ratio; φ never updated; g_down replaced by noise of its norm.",
    )
    value_gradient: Literal["double_backward", "finite_difference"] = "double_backward"
    finite_difference_step: float = Field(
        default=1e-2, gt=0, le=1, description="ε·‖g_down‖, the length by which S is moved."
    )
    every: int = Field(default=4, ge=1, le=10**6, description="r: the designer is updated before every r-th step.")
    last_blocks: Blocks = Field(default=2, description="K: S is the last K blocks and the final norm.")
    value_batch: Batch = Field(default=32, description="Most unlabelled images in the meta step.")
    designer_lr: Rate = 1.54e-4
    designer_channels: Width = Field(default=16, description="Feature maps at the U-Net's full resolution.")
    designer_depth: int = Field(default=3, ge=2, le=8, description="Number of the U-Net's resolutions.")
    keep: float = Field(default=0.6, gt=0, lt=1, description="Mean of the mask that R asks for.")
    sparsity_weight: Weight = Field(default=0.131, description="λ_s.")
    variation_weight: Weight = Field(default=0.144, description="λ_tv.")
    blur: float = Field(default=0.05, gt=0, lt=0.5, description="Standard deviation of Blur, as a part of the side.")
    feedback_batch: Batch = Field(default=32, description="Labelled images of a head batch and of a meta batch.")
    feedback_train: float = Field(default=0.8, gt=0, lt=1, description="Part of the feedback images that trains heads.")
    feedback_meta: float = Field(default=0.2, gt=0, lt=1, description="Part of the feedback images that gives g_down.")
    segmentation_weight: Weight = Field(default=1.0, description="α_seg.")
    depth_weight: Weight = Field(default=8.0, description="α_dep.")
    head_lr: Rate = 1e-3
    head_warmup: int = Field(default=0, ge=0, le=10**6, description="Head batches before the first meta step.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.feedback_train + self.feedback_meta > 1 + 1e-9:
            raise ValueError("feedback_train and feedback_meta must not sum to more than 1")
        if self.segmentation_weight == 0 and self.depth_weight == 0:
            raise ValueError("one of segmentation_weight and depth_weight must be above 0")
        return self

    def misfits(self, width: int, depth: int, patches: int) -> Iterator[str]:
        """Yield more blocks than there are."""
        yield from super().misfits(width, depth, patches)
        if self.last_blocks > depth:
            yield f"last_blocks is {self.last_blocks}; expected at most the backbone's {depth} blocks"
