"""GLARE's recipe and facts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from lowdata_cpt.methods.base import MethodConfig, Prototypes, Scale, Temperature, Weight, Width
from lowdata_cpt.methods.facts import NOISE, Facts, Precondition
from lowdata_cpt.training.config import Optimiser, Schedule


class GLARE(MethodConfig):
    """GLARE (arXiv 2509.17816). No official code is known: this is a re-implementation.

    lr = 5e-4 · batch / 256; the default is that of batch 256.
    """

    learner_path: ClassVar[str | None] = "lowdata_cpt.methods.glare.learner:GLARELearner"
    facts: ClassVar[Facts] = Facts(
        label="GLARE",
        color="#D55E00",
        marker="s",
        trains="adapters of 0.6 M parameters (ViT-S) beside each block; heads and cross-attention are dropped",
        control="dino",
        paper="Ebouky et al. 2025, arXiv 2509.17816",
        acts=tuple(Precondition(part, "ln K", NOISE) for part in ("global", "regional", "local")),
        # The source states no length, batch or rate.
    )

    method: Literal["glare"] = "glare"
    optimiser: Optimiser = Optimiser(lr=5e-4, weight_decay=0.04, weight_decay_end=0.1, clip=3.0)
    schedule: Schedule = Schedule(warmup=0.1, final_lr=1e-5)
    weight_global: Weight = Field(default=1.0, description="Weight of the CLS term; 0 leaves its work out.")
    weight_regional: Weight = Field(default=1.0, description="Weight of the region term; 0 leaves its work out.")
    weight_local: Weight = Field(default=1.0, description="Weight of the patch term; 0 leaves its work out.")
    rank: Width = Field(default=64, description="r, width of an adapter's bottleneck.")
    adapter_scale: float = Field(default=0.1, gt=0, le=100, description="Factor on an adapter's output.")
    prototypes: Prototypes = Field(default=8192, description="K, outputs of each head.")
    head_hidden: Width = Field(default=2048, description="Width of the heads' hidden layers.")
    head_bottleneck: Width = Field(default=256, description="Width of the heads' l2-normalised layer.")
    global_scale: Scale = Field(default=(0.25, 1.0), description="Area of the two views.")
    regions: int = Field(default=8, ge=1, le=1000, description="Regions per view.")
    region_top: float = Field(default=0.3, gt=0, le=1, description="Fraction of the patches that may be seeds.")
    region_sides: tuple[int, int] = Field(default=(2, 4), description="Smallest and largest side in patches.")
    blur_fraction: float = Field(default=0.3, gt=0, le=1, description="Fraction of the student's patches blurred.")
    blur_kernel: int = Field(default=5, ge=3, le=255, description="Odd side of the blur's window in pixels.")
    student_temperature: Temperature = Field(default=0.1, description="τ_s.")
    teacher_temperature: Temperature = Field(default=0.07, description="τ_t after its warm-up.")
    teacher_temperature_start: Temperature = Field(default=0.04, description="τ_t at step 0.")
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

    def misfits(self, width: int, depth: int, patches: int) -> Iterator[str]:
        """Yield regions that are larger than a view, and adapters that are wider than the tokens."""
        yield from super().misfits(width, depth, patches)
        if self.region_sides[0] > patches:
            yield f"region_sides is {self.region_sides}; expected sides up to a view's {patches} patches"
        if self.rank > width:
            yield f"rank is {self.rank}; expected at most the backbone's width, {width}"
