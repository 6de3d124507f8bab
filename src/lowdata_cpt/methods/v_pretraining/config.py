"""V-pretraining's recipe (vision) and its rows of the deviations ledger."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from lowdata_cpt.methods.base import Deviation
from lowdata_cpt.methods.dino.config import DINO
from lowdata_cpt.training.config import Optimiser, Schedule


class VPretraining(DINO):
    """V-pretraining (arXiv 2601.22108): DINO on views designed by a U-Net that downstream feedback teaches.

    The learner's recipe is `dino`'s, field by field; the defaults are the paper's ViT-B on ADE20K.
    """

    learner_path: ClassVar[str | None] = "lowdata_cpt.methods.v_pretraining.learner:VPretrainingLearner"
    needs_feedback: ClassVar[bool] = True
    deviations: ClassVar[tuple[Deviation, ...]] = (
        Deviation(
            "the learner",
            "DINO loss, head 8192, EMA .996, centring .9, 2 global and 6 local crops",
            "the learner of the `dino` control itself; every row of `dino` applies here too",
            "method and control then differ in the designer alone",
        ),
        Deviation(
            "who sees the designed views",
            "the mask is applied to the two global crops",
            "student and teacher both see them; ∂V/∂φ runs through both, the centre is held fixed in that pass",
            "the target is a function of the view, so leaving the teacher out would make ∂V/∂φ wrong",
        ),
        Deviation(
            "unlabelled batch of the meta step",
            "a separate unlabelled batch; its size and origin are not stated",
            "the crops of the previous training batch, at most `value_batch` images, kept in the checkpoint; "
            "at step 0, before there is one, the current crops; where r is a multiple of the steps of an epoch it is "
            "always the epoch's last, partial batch: at n = 100 and batch 32, 4 images",
            "separate from the batch the learner then steps on, at no cost, and a resumed run stays bit-equal",
        ),
        Deviation(
            "centre in the first meta step",
            "not stated",
            "where the centre starts at the first batch, it does so before the meta step, with the whole batch under "
            "the first masks",
            "the few images of the meta step must not set the learner's centre",
        ),
        Deviation(
            "depth of the U-Net",
            "base channels 16, depth 3; layers not stated",
            "three resolutions (16, 32, 64 channels; half of each in the CPU studies), two 3×3 convolutions with group "
            "norm and GELU each",
            "group norm keeps the mask instance-wise and free of running statistics",
        ),
        Deviation(
            "blur",
            "kernel not stated",
            "Gaussian, standard deviation .05 of the crop's side, reflected border",
            "removes an object's detail but keeps the layout; the same share of the image at every size",
        ),
        Deviation(
            "regulariser",
            "sparsity toward a keep ratio and total variation; forms not stated",
            "mean over images of (mean μ − keep)²; mean absolute difference of neighbouring pixels",
            "instance-wise like the mask; both independent of the image size",
        ),
        Deviation(
            "start of the designer",
            "not stated",
            "last bias at logit(keep): the first masks have about the wanted mean",
            "the first steps need not be spent on the regulariser, and the frozen control has the same keep ratio",
        ),
        Deviation(
            "designer's optimiser",
            "learning rate given; rest not stated",
            "AdamW, default betas, no weight decay, constant rate, no clipping; rate 1e-3 in the CPU studies",
            "R is the regulariser already; ten updates of φ at 1.5e-4 would leave the first masks as they are",
        ),
        Deviation(
            "settings per domain",
            "α, keep ratio, K and r are selected per backbone and feedback set",
            "those of ViT-B on ADE20K for every domain; the paper study's entries of its own budget have those of "
            "NYUv2 for NYUv2; a domain without depth labels has no depth term",
            "a new domain comes without a selected setting",
        ),
        Deviation(
            "feedback heads",
            "linear pixel heads for segmentation and depth; optimiser not stated",
            "one linear layer per task on the patch tokens after the final norm, bilinear upsampling, softplus for "
            "depth with its bias at the median depth, AdamW 1e-3, one batch per meta step",
            "the same features that the probes read; L1 in metres starts at the right scale",
        ),
        Deviation(
            "start of the heads",
            "not stated; 20,000 learner steps let them converge on the way",
            "`head_warmup` batches on fixed features before the first meta step; 0 at paper scale, more in CPU studies",
            "with a few hundred learner steps the feedback of untrained heads would be noise throughout",
        ),
        Deviation(
            "feedback images",
            "ADE20K 2,000 train and 512 meta; NYUv2 512 and 128",
            "the study's labelled train images, split .8 to .2 by content hash (the source's numbers where the paper "
            "study runs its own budget on ADE20K); resized whole to the training size, no augmentation; the same pool "
            "at every n, so at n = 100 there are more labelled than unlabelled images",
            "what n varies is the unlabelled images; a feedback image is never a val or test image",
        ),
        Deviation(
            "evaluation",
            "linear heads of 20,000 steps; learning rate not stated; NYUv2 at 480×640",
            "the same heads, their rate from a grid of three, chosen on validation; NYUv2 as a square of 480 px; 300 "
            "steps in the CPU studies",
            "one evaluation for all methods",
        ),
        Deviation(
            "random mask control",
            "no such arm is printed",
            "binary blobs from an 8×8 field of normal numbers, cut so that exactly the keep ratio stays sharp",
            "asks whether the designer's choice of pixels matters beyond blurring as many",
        ),
        Deviation(
            "finite differences",
            "double backward",
            "double backward by default; `value_gradient: finite_difference` moves S by a fixed length along g_down",
            "the same derivative from first derivatives alone, so fused attention kernels serve",
        ),
    )

    method: Literal["v_pretraining"] = "v_pretraining"  # type: ignore[assignment]
    optimiser: Optimiser = Optimiser(lr=4.15e-6, weight_decay=0.04, clip=1.0)
    schedule: Schedule = Schedule(warmup=0.05)
    designer: Literal["learned", "random_mask", "frozen", "random_feedback"] = Field(
        default="learned",
        description="Controls: random masks of the keep ratio; φ never updated; g_down replaced by noise of its norm.",
    )
    value_gradient: Literal["double_backward", "finite_difference"] = "double_backward"
    finite_difference_step: float = Field(default=1e-2, gt=0, description="ε·‖g_down‖, the length by which S is moved.")
    every: int = Field(default=4, ge=1, description="r: the designer is updated before every r-th step.")
    last_blocks: int = Field(default=2, ge=1, description="K: S is the last K blocks and the final norm.")
    value_batch: int = Field(default=32, ge=1, description="Most unlabelled images in the meta step.")
    designer_lr: float = Field(default=1.54e-4, gt=0)
    designer_channels: int = Field(default=16, ge=1, description="Feature maps at the U-Net's full resolution.")
    designer_depth: int = Field(default=3, ge=2, description="Number of the U-Net's resolutions.")
    keep: float = Field(default=0.6, gt=0, lt=1, description="Mean of the mask that R asks for.")
    sparsity_weight: float = Field(default=0.131, ge=0, description="λ_s.")
    variation_weight: float = Field(default=0.144, ge=0, description="λ_tv.")
    blur: float = Field(default=0.05, gt=0, lt=0.5, description="Standard deviation of Blur, as a part of the side.")
    feedback_batch: int = Field(default=32, ge=1, description="Labelled images of a head batch and of a meta batch.")
    feedback_train: float = Field(default=0.8, gt=0, lt=1, description="Part of the feedback images that trains heads.")
    feedback_meta: float = Field(default=0.2, gt=0, lt=1, description="Part of the feedback images that gives g_down.")
    segmentation_weight: float = Field(default=1.0, ge=0, description="α_seg.")
    depth_weight: float = Field(default=8.0, ge=0, description="α_dep.")
    head_lr: float = Field(default=1e-3, gt=0)
    head_warmup: int = Field(default=0, ge=0, description="Head batches before the first meta step.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.feedback_train + self.feedback_meta > 1 + 1e-9:
            raise ValueError("feedback_train and feedback_meta must not sum to more than 1")
        if self.segmentation_weight == 0 and self.depth_weight == 0:
            raise ValueError("one of segmentation_weight and depth_weight must be above 0")
        return self
