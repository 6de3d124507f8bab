"""Continued DINO's recipe and its rows of the deviations ledger."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lowdata_cpt.methods.base import Deviation, MethodConfig
from lowdata_cpt.training.config import Optimiser, Schedule


class DINO(MethodConfig):
    """Continued DINO: the learner of V-pretraining (arXiv 2601.22108) with fixed views instead of designed ones."""

    learner_path: ClassVar[str | None] = "lowdata_cpt.methods.dino.learner:DINOLearner"
    deviations: ClassVar[tuple[Deviation, ...]] = (
        Deviation(
            "which encoder is exported",
            "DINO evaluates the EMA teacher; V-pretraining says only that the learner θ is evaluated",
            "the student by default (`export: student | teacher`)",
            "with momentum .996 and a few hundred steps the teacher is still mostly the released weights",
        ),
        Deviation(
            "EMA momentum",
            "DINO: cosine .996 to 1; V-pretraining: .996, no schedule stated",
            "constant .996; in the CPU studies a cosine from .99 to .996 (`ema`, `ema_end`)",
            "this is V-pretraining's control, so its value is taken as printed; 32 steps would leave a teacher at .996 "
            "where it began",
        ),
        Deviation(
            "learning rate",
            "V-pretraining selects it per backbone and feedback set, 1.9e-6 to 4.5e-5",
            "4.15e-6, selected at batch 256 (its ViT-B on ADE20K), unscaled at batch 32; CPU studies set their own",
            "one control serves both feedback sets",
        ),
        Deviation(
            "frozen prototypes at the start",
            "DINO: first of 100 epochs; V-pretraining: not stated",
            "first 1 % of the steps (`freeze_last_layer`)",
            "the same fraction of the run as DINO's",
        ),
        Deviation(
            "area of the crops",
            "DINO: global .4–1 or .25–1, local .05–.4 or .05–.25; V-pretraining: not stated",
            "global .25–1, local .05–.25",
            "the split with the smaller overlap of scales, as in GLARE's recipe",
        ),
        Deviation(
            "side of the local crops",
            "96 px at 224 px",
            "96 px scaled with the training size and rounded to whole patches (98 px for patch 14 at 224 px)",
            "any patch size and any training size must work",
        ),
        Deviation(
            "prototype layer",
            "weight normalisation with the gain fixed at one",
            "rows of the weight divided by their norm",
            "the same function without a reparametrisation to checkpoint",
        ),
        Deviation(
            "stochastic depth",
            "DINO: drop path .1 in the student",
            "none",
            "continued pretraining starts from a trained network; V-pretraining states none",
        ),
        Deviation(
            "colour jitter",
            "order of the four operations drawn per image",
            "order drawn per batch, strengths per image",
            "augmentation runs batched on tensors",
        ),
        Deviation(
            "image resampling, blur",
            "PIL with antialiasing; Gaussian blur of .1 to 2 px at 224 px",
            "bicubic sampling of the decoded cache, first shrunk by a whole factor where every crop of the batch is "
            "that "
            "much larger than the training size; the blur has .1 to 2 px at every size",
            "augmentation runs batched on tensors; at 70 px single crops are aliased and the blur is relatively three "
            "times as strong, for every method that uses these views alike",
        ),
        Deviation(
            "size of the head, number of crops",
            "8192 prototypes, hidden width 2048, 6 local crops",
            "the same at paper scale; 2048 (quick: 1024), 512 and 2 in the CPU studies",
            "what two cores finish",
        ),
        Deviation(
            "centre at step 0",
            "DINO's code: zero; V-pretraining: not stated",
            "zero at paper scale; the mean of the first batch's teacher logits in the CPU studies (`centre_start`)",
            "a new head's logits have a large common part; from zero, tens of steps teach that part and nothing else",
        ),
        Deviation(
            "length of the run",
            "20,000 steps of batch 256, 1,000 of them warm-up",
            "20,000 to 20,128 steps in the paper study's entries of the source's own budget, at batches of 250 and 265 "
            "where the source has 256; else 150 epochs at batch 32; CPU studies: a fixed number of images seen, the "
            "same for every method",
            "methods are compared at equal images seen, in whole epochs: of 1000 or 795 images 256 would leave a last "
            "batch of 232 or 27; the warm-up keeps its fraction of the run",
        ),
    )

    method: Literal["dino"] = "dino"
    optimiser: Optimiser = Optimiser(lr=4.15e-6, weight_decay=0.04, clip=1.0)
    schedule: Schedule = Schedule(warmup=0.05)
    prototypes: int = Field(default=8192, ge=2, description="K, outputs of the head.")
    head_hidden: int = Field(default=2048, ge=1, description="Width of the head's hidden layers.")
    head_bottleneck: int = Field(default=256, ge=1, description="Width of the head's l2-normalised layer.")
    freeze_last_layer: float = Field(default=0.01, ge=0, le=1, description="Fraction of the run with fixed prototypes.")
    local_crops: int = Field(default=6, ge=0, description="Number of local views per image.")
    local_crop_size: int = Field(default=96, ge=1, description="Side of a local view at 224 px; scaled with the image.")
    global_scale: tuple[float, float] = Field(default=(0.25, 1.0), description="Area of a global view.")
    local_scale: tuple[float, float] = Field(default=(0.05, 0.25), description="Area of a local view.")
    student_temperature: float = Field(default=0.1, gt=0, description="τ_s.")
    teacher_temperature: float = Field(default=0.04, gt=0, description="τ_t after its warm-up.")
    teacher_temperature_start: float = Field(default=0.04, gt=0, description="τ_t at step 0.")
    teacher_temperature_warmup: float = Field(default=0.0, ge=0, le=1, description="Fraction of the run to reach τ_t.")
    centre_momentum: float = Field(default=0.9, ge=0, lt=1)
    centre_start: Literal["zero", "first_batch"] = Field(
        default="zero", description="Centre at step 0: zero, or the mean of the first batch's teacher logits."
    )
    ema: float = Field(default=0.996, ge=0, le=1, description="Teacher's momentum at step 0.")
    ema_end: float = Field(default=0.996, ge=0, le=1, description="Teacher's momentum at the end of a cosine.")
    export: Literal["student", "teacher"] = Field(default="student", description="Which encoder the probes get.")
