"""TEC's recipe and facts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from lowdata_cpt.methods.base import Blocks, MethodConfig, Scale, Temperature, Weight, Width
from lowdata_cpt.methods.facts import NORMALISED, Facts, Precondition, SourceBudget
from lowdata_cpt.methods.mae.config import masking_misfits
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
    target_blocks: Blocks = Field(default=2, description="Number of last blocks whose mean output is the target.")
    relation_queries: int | None = Field(
        default=None,
        ge=1,
        le=10**6,
        description="Patches whose relations are predicted, beside CLS. Null: 15 MAE, else 9.",
    )
    temperature: Temperature | None = Field(
        default=None, description="Of the teacher's relation. Null: 1.8 MAE (1.4 from width 1024), else 1.0."
    )
    feature_weight: Weight = 1.0
    relation_weight: Weight = 1.0
    decoder_depth: Blocks = 2
    decoder_width: Width | None = Field(default=None, ge=4, description="Null: scaled with the backbone's width.")
    decoder_heads: int | None = Field(default=None, ge=1, le=1024, description="Null: 16, fewer in narrow decoders.")
    crop_scale: Scale = Field(default=(0.2, 1.0), description="Area of the random resized crop.")

    @model_validator(mode="after")
    def _learns(self) -> Self:
        if self.feature_weight == 0 and self.relation_weight == 0:
            raise ValueError("feature_weight and relation_weight are both 0; expected at least one above 0")
        return self

    def misfits(self, width: int, depth: int, patches: int) -> Iterator[str]:
        """Yield more blocks or patches than there are, and what a masked autoencoder cannot have."""
        yield from super().misfits(width, depth, patches)
        yield from masking_misfits(self.decoder_width, self.decoder_heads, width, patches)
        if self.target_blocks > depth:
            yield f"target_blocks is {self.target_blocks}; expected at most the backbone's {depth} blocks"
        if (self.relation_queries or 0) > patches**2:
            yield f"relation_queries is {self.relation_queries}; expected at most a view's {patches**2} patches"

    def resolve_relation(self, base: str, width: int) -> tuple[int, float]:
        """Return the number of query patches and the teacher's temperature for a base of that name and width."""
        mae = "mae" in base.lower()
        queries = self.relation_queries or (15 if mae else 9)
        usual = (1.4 if width >= 1024 else 1.8) if mae else 1.0
        return queries, self.temperature or usual
