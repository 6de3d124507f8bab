"""DIET-CP's recipe and facts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from lowdata_cpt.methods.base import Blocks, MethodConfig
from lowdata_cpt.methods.facts import Facts, Precondition, SourceBudget
from lowdata_cpt.training.config import Optimiser, Schedule


class DietCP(MethodConfig):
    """DIET-CP (arXiv 2509.06990; the authors' experiment code)."""

    learner_path: ClassVar[str | None] = "lowdata_cpt.methods.diet_cp.learner:DietCPLearner"
    facts: ClassVar[Facts] = Facts(
        label="DIET-CP",
        color="#0072B2",
        marker="o",
        trains="the last two blocks, and a linear head with one output per image, which is dropped",
        control="dino",
        step_zero="base_domain_norm",
        paper="Rodas et al. 2025, arXiv 2509.06990",
        acts=(Precondition("loss", "ln n", margin=0.1),),
        source_budget=SourceBudget(150, 150 / 32, 1e-4, per_image=True),  # 150 epochs of batches of 32 (authors' code)
    )

    method: Literal["diet_cp"] = "diet_cp"
    optimiser: Optimiser = Optimiser(lr=1e-4, weight_decay=0.05, decay_norm_and_bias=True)
    schedule: Schedule = Schedule(unit="epoch", warmup=0.1, final_lr=1e-5)
    label_smoothing: float = Field(default=0.2, ge=0, lt=1)
    trained_blocks: Blocks = Field(default=2, description="Number of last transformer blocks that are trained.")
    head_only: float = Field(
        default=0.05, ge=0, lt=1, description="Fraction of the run, in the schedule's unit, that trains W only."
    )
    normalisation: Literal["domain", "pretraining"] = Field(
        default="domain",
        description="Whose mean and standard deviation normalise the views; the authors use the domain's.",
    )

    def misfits(self, width: int, depth: int, patches: int) -> Iterator[str]:
        """Yield more blocks than there are."""
        yield from super().misfits(width, depth, patches)
        if self.trained_blocks > depth:
            yield f"trained_blocks is {self.trained_blocks}; expected at most the backbone's {depth} blocks"
