"""Continued DINO's recipe and facts."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lowdata_cpt.methods.base import MethodConfig, Prototypes, Scale, Temperature, Width
from lowdata_cpt.methods.facts import NOISE, Facts, Precondition, SourceBudget
from lowdata_cpt.training.config import Optimiser, Schedule


class DINO(MethodConfig):
    """Continued DINO: the learner of V-pretraining (arXiv 2601.22108) with fixed views instead of designed ones."""

    learner_path: ClassVar[str | None] = "lowdata_cpt.methods.dino.learner:DINOLearner"
    facts: ClassVar[Facts] = Facts(
        label="DINO (control)",
        color="#5a5a5a",
        marker="P",
        line="--",
        role="control",
        trains="the whole backbone, and a projection head, which is dropped",
        paper="Caron et al. 2021, arXiv 2104.14294",
        acts=(Precondition("loss", "ln K", NOISE),),
        # As V-pretraining's control on ADE20K, ViT-B (its appendix G).
        source_budget=SourceBudget(20_000 * 256, 20_000, 4.15e-6),
    )

    method: Literal["dino"] = "dino"
    optimiser: Optimiser = Optimiser(lr=4.15e-6, weight_decay=0.04, clip=1.0)
    schedule: Schedule = Schedule(warmup=0.05)
    prototypes: Prototypes = Field(default=8192, description="K, outputs of the head.")
    head_hidden: Width = Field(default=2048, description="Width of the head's hidden layers.")
    head_bottleneck: Width = Field(default=256, description="Width of the head's l2-normalised layer.")
    freeze_last_layer: float = Field(default=0.01, ge=0, le=1, description="Fraction of the run with fixed prototypes.")
    local_crops: int = Field(default=6, ge=0, le=64, description="Number of local views per image.")
    local_crop_size: int = Field(
        default=96, ge=1, le=224, description="Side of a local view at 224 px; scaled with the image."
    )
    global_scale: Scale = Field(default=(0.25, 1.0), description="Area of a global view.")
    local_scale: Scale = Field(default=(0.05, 0.25), description="Area of a local view.")
    student_temperature: Temperature = Field(default=0.1, description="τ_s.")
    teacher_temperature: Temperature = Field(default=0.04, description="τ_t after its warm-up.")
    teacher_temperature_start: Temperature = Field(default=0.04, description="τ_t at step 0.")
    teacher_temperature_warmup: float = Field(default=0.0, ge=0, le=1, description="Fraction of the run to reach τ_t.")
    centre_momentum: float = Field(default=0.9, ge=0, lt=1)
    centre_start: Literal["zero", "first_batch"] = Field(
        default="zero", description="Centre at step 0: zero, or the mean of the first batch's teacher logits."
    )
    ema: float = Field(default=0.996, ge=0, le=1, description="Teacher's momentum at step 0.")
    ema_end: float = Field(default=1.0, ge=0, le=1, description="Teacher's momentum at the end of a cosine.")
    export: Literal["student", "teacher"] = Field(default="student", description="Which encoder the probes get.")
