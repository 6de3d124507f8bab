"""DIET-CP's recipe and its rows of the deviations ledger."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lowdata_cpt.methods.base import Deviation, MethodConfig
from lowdata_cpt.training.config import Optimiser, Schedule


class DietCP(MethodConfig):
    """DIET-CP (arXiv 2509.06990; the authors' experiment code)."""

    learner_path: ClassVar[str | None] = "lowdata_cpt.methods.diet_cp.learner:DietCPLearner"
    deviations: ClassVar[tuple[Deviation, ...]] = (
        Deviation(
            "class token of MAE-type backbones",
            "not stated; the authors' code calls an MAE model that, by its library's default, masks patches at random",
            "CLS feature with all patches visible, after the final norm",
            "the same feature that the probes read",
        ),
        Deviation(
            "colour jitter",
            "order of the four operations drawn per image",
            "order drawn per batch, strengths per image",
            "augmentation runs batched on tensors",
        ),
        Deviation(
            "image resampling",
            "PIL bilinear with antialiasing",
            "bilinear sampling of the decoded cache, first shrunk by a whole factor where every crop of the batch is "
            "that "
            "much larger than the training size",
            "augmentation runs batched on tensors; single crops up to twice the training size are therefore aliased",
        ),
        Deviation(
            "normalisation",
            "mean and standard deviation per data set, hard-coded, for training and evaluation, of the base too",
            "those of the N unlabelled images for training; the exported patch embedding takes the change to the "
            "backbone's own, so that evaluation is the same function; the base is evaluated under its own, and under "
            "the pool's (`base_domain_norm`), the source's step 0",
            "a new domain's statistics are known from its images alone; one base row serves all methods",
        ),
        Deviation(
            "learning rate",
            "1e-4 to 1e-5",
            "the same at paper scale; 2e-5 to 2e-6 in the CPU studies",
            "chosen on validation scenes that no other study sees (`results/tuning`)",
        ),
        Deviation(
            "evaluation",
            "linear probe: one layer, Adam 1e-3, 10,000 steps, batch 512; labelled bank: the N images, augmented",
            "logistic regression on centred and scaled features, C chosen on validation; bank: the domain's whole "
            "labelled train split at every n, clean; features in the study's precision (bf16 in the paper study)",
            "one evaluation for all methods; n then counts what is learnt from without labels",
        ),
        Deviation(
            "length of the run",
            "150 epochs",
            "paper study: 150 epochs; CPU studies: a fixed number of images seen, the same for every method",
            "methods are compared at equal images seen; fractions of the run (5 % head only, 10 % warm-up) are kept, "
            "in epochs as in the source (`schedule.unit: epoch`) or, where a run has fewer than 20 epochs, in steps",
        ),
    )

    method: Literal["diet_cp"] = "diet_cp"
    optimiser: Optimiser = Optimiser(lr=1e-4, weight_decay=0.05, decay_norm_and_bias=True)
    schedule: Schedule = Schedule(unit="epoch", warmup=0.1, final_lr=1e-5)
    label_smoothing: float = Field(default=0.2, ge=0, lt=1)
    trained_blocks: int = Field(default=2, ge=1, description="Number of last transformer blocks that are trained.")
    head_only: float = Field(
        default=0.05, ge=0, lt=1, description="Fraction of the run, in the schedule's unit, that trains W only."
    )
    normalisation: Literal["domain", "pretraining"] = Field(
        default="domain",
        description="Whose mean and standard deviation normalise the views; the authors use the domain's.",
    )
