"""GLARE's recipe and its rows of the deviations ledger."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from lowdata_cpt.methods.base import Deviation, MethodConfig
from lowdata_cpt.training.config import Optimiser, Schedule


class GLARE(MethodConfig):
    """GLARE (arXiv 2509.17816). No official code is known: this is a re-implementation.

    lr = 5e-4 · batch / 256; the default is that of batch 256.
    """

    learner_path: ClassVar[str | None] = "lowdata_cpt.methods.glare.learner:GLARELearner"
    deviations: ClassVar[tuple[Deviation, ...]] = (
        Deviation(
            "whole method",
            "paper only; no official code is known",
            "a re-implementation from the paper; what it leaves open is listed below",
            "effects of .2 to .6 mIoU need every choice on the table",
        ),
        Deviation(
            "backbone",
            "UDI ViT-S/16",
            "any timm ViT with pre-norm blocks",
            "one study compares the methods on the same backbones",
        ),
        Deviation(
            "form of each loss",
            "third parties: DINO cross-entropy, centred teacher; weights 1:1:1",
            "the same; one head and one centre per level",
            "CLS, region and patch features have different means, so one centre would not fit all",
        ),
        Deviation(
            "keys of the cross-attention",
            "correspondence across views by cross-attention; one third party attends within the same view",
            "the student's patch tokens of the other view",
            "only then does the term ask for consistency across views",
        ),
        Deviation(
            "target of a region",
            "not stated on which side the cross-attention stands",
            "student: head(CA(z, Z of the other view)); teacher: head of the region's own mean, without CA",
            "the cross-attention is trained, so it must stand on the side that takes gradients",
        ),
        Deviation(
            "start of the cross-attention",
            "not stated",
            "W_q, W_k, W_v start at the identity; one head; τ = 1/√D",
            "step 0 then finds the most similar patches; random matrices would first have to unlearn noise",
        ),
        Deviation(
            "number and seeds of the regions",
            "third party, unverified: 8 per image, seeds among the patches that a random CLS head ranks highest",
            "8 per view, seeds uniform among the top 30 %, attention of the teacher on the clean view",
            "the fraction is stated nowhere; the teacher's attention is the steadier one",
        ),
        Deviation(
            "growth of a region",
            "the connected patch block grown around the seed",
            "height and width uniform in 2..4 patches; of the blocks with the seed inside, the one with most attention",
            "sizes and rule are stated nowhere",
        ),
        Deviation(
            "patch blur",
            "strong blur of a fraction of the student's patches (third party: .3, 5×5)",
            "5×5 mean on round(.3 N) patches of each view; the same blurred views feed all three terms",
            "the mean is the strongest 5×5 blur; a second student pass would double the cost",
        ),
        Deviation(
            "cross-view patches",
            "not stated how patches are paired",
            "paired with the other view's patch that holds its centre, by crop boxes and flips; others left out",
            "the geometry is known exactly, so nothing need be guessed from features",
        ),
        Deviation(
            "parts of the local term",
            "not stated how same-view and cross-view parts are weighed",
            "mean of the two",
            "the term keeps the scale of one cross-entropy, as the other two have",
        ),
        Deviation(
            "image-level augmentation",
            "two augmented views; details not stated",
            "DINO's two global views, area .25–1; no local crops",
            "the recipe of UDI's family",
        ),
        Deviation(
            "image resampling, blur",
            "not stated; DINO's code: PIL with antialiasing, Gaussian blur of .1 to 2 px at 224 px",
            "as in the `dino` control: bicubic sampling of the decoded cache, blur of .1 to 2 px at every size",
            "augmentation runs batched on tensors",
        ),
        Deviation(
            "adapter rank",
            "third party: 64",
            "64; LN, ReLU, scale .1, Kaiming(√5) down, zero up and biases, as in UniAdapter's code",
            "0.60 M parameters for ViT-S, as listed",
        ),
        Deviation(
            "optimiser, schedules, head",
            "not stated; UDI's recipe",
            "AdamW 5e-4·batch/256 to 1e-5, 10 % warm-up, wd .04→.1, EMA .996→1, τ_s .1, τ_t .04→.07, K 8192, clip 3",
            "the nearest published recipe (clipping is of the global norm); CPU studies use K 2048 (quick: 1024), "
            "hidden width 512, EMA .99→1 and their own rate",
        ),
        Deviation(
            "which encoder is exported",
            "not stated",
            "the base encoder's adapters by default (`export: student | teacher`)",
            "with momentum .996 and a few hundred steps the teacher's adapters are still near zero",
        ),
        Deviation(
            "centre at step 0",
            "not stated (DINO's code: zero)",
            "zero at paper scale; the mean of the first batch's teacher logits in the CPU studies (`centre_start`)",
            "a new head's logits have a large common part; from zero, tens of steps teach that part and nothing else",
        ),
        Deviation(
            "length of the run",
            "not stated for 100 to 1000 images",
            "a fixed number of images seen, the same for every method",
            "methods are compared at equal images seen",
        ),
    )

    method: Literal["glare"] = "glare"
    optimiser: Optimiser = Optimiser(lr=5e-4, weight_decay=0.04, weight_decay_end=0.1, clip=3.0)
    schedule: Schedule = Schedule(warmup=0.1, final_lr=1e-5)
    weight_global: float = Field(default=1.0, ge=0, description="Weight of the CLS term; 0 leaves its work out.")
    weight_regional: float = Field(default=1.0, ge=0, description="Weight of the region term; 0 leaves its work out.")
    weight_local: float = Field(default=1.0, ge=0, description="Weight of the patch term; 0 leaves its work out.")
    rank: int = Field(default=64, ge=1, description="r, width of an adapter's bottleneck.")
    adapter_scale: float = Field(default=0.1, gt=0, description="Factor on an adapter's output.")
    prototypes: int = Field(default=8192, ge=2, description="K, outputs of each head.")
    head_hidden: int = Field(default=2048, ge=1, description="Width of the heads' hidden layers.")
    head_bottleneck: int = Field(default=256, ge=1, description="Width of the heads' l2-normalised layer.")
    global_scale: tuple[float, float] = Field(default=(0.25, 1.0), description="Area of the two views.")
    regions: int = Field(default=8, ge=1, description="Regions per view.")
    region_top: float = Field(default=0.3, gt=0, le=1, description="Fraction of the patches that may be seeds.")
    region_sides: tuple[int, int] = Field(default=(2, 4), description="Smallest and largest side in patches.")
    blur_fraction: float = Field(default=0.3, gt=0, le=1, description="Fraction of the student's patches blurred.")
    blur_kernel: int = Field(default=5, ge=3, description="Odd side of the blur's window in pixels.")
    student_temperature: float = Field(default=0.1, gt=0, description="τ_s.")
    teacher_temperature: float = Field(default=0.07, gt=0, description="τ_t after its warm-up.")
    teacher_temperature_start: float = Field(default=0.04, gt=0, description="τ_t at step 0.")
    teacher_temperature_warmup: float = Field(default=0.1, ge=0, le=1, description="Fraction of the run to reach τ_t.")
    centre_momentum: float = Field(default=0.9, ge=0, lt=1)
    centre_start: Literal["zero", "first_batch"] = Field(
        default="zero", description="Centre at step 0: zero, or the mean of the first batch's teacher logits."
    )
    ema: float = Field(default=0.996, ge=0, le=1, description="Teacher's momentum at step 0.")
    ema_end: float = Field(default=1.0, ge=0, le=1, description="Teacher's momentum at the end of a cosine.")
    export: Literal["student", "teacher"] = Field(default="student", description="Whose adapters the probes get.")

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the terms that are switched on."""
        terms = {"global": self.weight_global, "regional": self.weight_regional, "local": self.weight_local}
        return {name: weight for name, weight in terms.items() if weight > 0}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.weights:
            raise ValueError("weight_global, weight_regional and weight_local are all 0; expected at least one above 0")
        if not 1 <= self.region_sides[0] <= self.region_sides[1]:
            raise ValueError(f"region_sides is {self.region_sides}; expected 1 <= smallest <= largest")
        if self.blur_kernel % 2 == 0:
            raise ValueError(f"blur_kernel is {self.blur_kernel}; expected an odd number")
        return self
