"""TEC's recipe and facts."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lowdata_cpt.methods.base import MethodConfig
from lowdata_cpt.methods.facts import NORMALISED, Facts, Precondition, SourceBudget
from lowdata_cpt.training.config import Optimiser, Schedule


class TEC(MethodConfig):
    """Target-enhanced conditional pretraining (TEC, arXiv 2210.11016; the authors' code).

    lr = 1.5e-4 · batch / 256; the default is that of batch 4096. Warm-up is 40 of 300 epochs.
    """

    learner_path: ClassVar[str | None] = "lowdata_cpt.methods.tec.learner:TECLearner"
    facts: ClassVar[Facts] = Facts(
        label="TEC",
        color="#009E73",
        marker="^",
        trains="the whole backbone but its position embedding; adapters and decoder are dropped",
        control="mae",
        paper="Gao et al. 2022, arXiv 2210.11016",
        acts=(Precondition("feature", NORMALISED),),
        # 300 epochs of ImageNet-1k (authors' code).
        source_budget=SourceBudget(300 * 1_281_167, 300 * 1_281_167 / 4096, 2.4e-3),
    )

    method: Literal["tec"] = "tec"
    optimiser: Optimiser = Optimiser(lr=2.4e-3, betas=(0.9, 0.95), weight_decay=0.05)
    schedule: Schedule = Schedule(unit="step", warmup=40 / 300, final_lr=0.0)
    init: Literal["base", "random"] = Field(default="base", description="Where the student starts.")
    mask_ratio: float = Field(default=0.75, gt=0, lt=1, description="Fraction of the patches hidden from the student.")
    target_blocks: int = Field(default=2, ge=1, description="Number of last blocks whose mean output is the target.")
    relation_queries: int | None = Field(
        default=None, ge=1, description="Patches whose relations are predicted, beside CLS. Null: 15 MAE, else 9."
    )
    temperature: float | None = Field(
        default=None, gt=0, description="Of the teacher's relation. Null: 1.8 MAE (1.4 from width 1024), else 1.0."
    )
    feature_weight: float = Field(default=1.0, ge=0)
    relation_weight: float = Field(default=1.0, ge=0)
    decoder_depth: int = Field(default=2, ge=1)
    decoder_width: int | None = Field(default=None, ge=4, description="Null: scaled with the backbone's width.")
    decoder_heads: int | None = Field(default=None, ge=1, description="Null: 16, fewer in narrow decoders.")
    crop_scale: tuple[float, float] = Field(default=(0.2, 1.0), description="Area of the random resized crop.")

    def resolve_relation(self, base: str, width: int) -> tuple[int, float]:
        """Return the number of query patches and the teacher's temperature for a base of that name and width."""
        mae = "mae" in base.lower()
        queries = self.relation_queries or (15 if mae else 9)
        usual = (1.4 if width >= 1024 else 1.8) if mae else 1.0
        return queries, self.temperature or usual
