"""How a cell is trained: length and numerics, optimiser, schedule, and the recipe that joins them. Torch-free."""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from lowdata_cpt.core.strict import Strict

if TYPE_CHECKING:
    from lowdata_cpt.training.learner import Learner


class Training(Strict):
    """Length and numerics of every training run. Whole epochs are run and the last partial batch is kept."""

    images_seen: int | None = Field(
        default=None, ge=1, description="Target number of images drawn; rounded to whole epochs. Or give `epochs`."
    )
    epochs: int | None = Field(
        default=None, ge=1, description="Number of passes over the subset. Or give `images_seen`."
    )
    batch_size: int = Field(default=32, ge=1)
    accumulation: int = Field(default=1, ge=1, description="Micro-batches per optimiser step.")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="bf16 autocasts the forward pass.")
    compile: bool = Field(default=False, description="torch.compile the transformer blocks.")
    max_steps: int | None = Field(default=None, ge=1, description="Stop after this many steps (self-tests only).")
    milestones: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(),
        description="Images seen at which the model is exported and evaluated, ascending, 0 for the start; the end "
        "always is, and what lies beyond it is left out.",
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.images_seen is None) == (self.epochs is None):
            raise ValueError("give exactly one of `images_seen` and `epochs`")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones are {list(self.milestones)}; expected ascending numbers, each once")
        return self

    def length(self, n_images: int) -> tuple[int, int]:
        """Return (epochs, steps per epoch) for a subset of `n_images`."""
        epochs = self.epochs or max(1, round((self.images_seen or 0) / n_images))
        return epochs, math.ceil(n_images / self.batch_size)

    def steps(self, n_images: int) -> int:
        """Return the number of optimiser steps for a subset of `n_images`."""
        epochs, per_epoch = self.length(n_images)
        return min(epochs * per_epoch, self.max_steps or epochs * per_epoch)

    def images_after(self, steps: int, n_images: int) -> int:
        """Return how many images `steps` steps see: an epoch's last batch may be smaller."""
        epochs, within = divmod(steps, math.ceil(n_images / self.batch_size))
        return epochs * n_images + min(within * self.batch_size, n_images)

    def milestone_steps(self, n_images: int) -> dict[int, int]:
        """Return number of steps -> images seen of each milestone of a run over `n_images`, the end included."""
        last = self.steps(n_images)
        epoch = math.ceil(n_images / self.batch_size)
        found = {}
        for wanted in self.milestones:
            epochs, rest = divmod(wanted, n_images)
            step = epochs * epoch + math.ceil(rest / self.batch_size)
            if step < last:
                found[step] = self.images_after(step, n_images)
        return found | {last: self.images_after(last, n_images)}


class TrainingOverlay(Strict):
    """What a method trains differently from the study's `training`; what is left out is the study's."""

    images_seen: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    accumulation: int | None = None
    precision: Literal["fp32", "bf16"] | None = None
    compile: bool | None = None
    max_steps: int | None = None
    milestones: tuple[int, ...] | None = None

    def over(self, training: Training) -> Training:
        """Return `training` with these values over it; one kind of length replaces the other."""
        given = self.model_dump(exclude_none=True)
        if {"images_seen", "epochs"} & given.keys():
            given = {"images_seen": None, "epochs": None} | given
        return Training.model_validate(training.model_dump() | given)


class Optimiser(Strict):
    """AdamW. The learning rate is absolute: `base_lr · batch / 256` rules are resolved in the config."""

    lr: float = Field(gt=0, description="Peak learning rate.")
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.05, ge=0)
    weight_decay_end: float | None = Field(default=None, ge=0, description="Cosine to this value; constant when null.")
    decay_norm_and_bias: bool = Field(default=False, description="Apply weight decay to biases and norms too.")
    clip: float | None = Field(default=None, gt=0, description="Largest global gradient norm; none when null.")


class Schedule(Strict):
    """Linear warm-up, then cosine. `unit: epoch` changes the rate between epochs only, as DIET-CP's code does."""

    unit: Literal["step", "epoch"] = "step"
    warmup: float = Field(default=0.1, ge=0, lt=1, description="Fraction of the run that warms up.")
    final_lr: float = Field(default=0.0, ge=0, description="Learning rate at the end of the cosine.")


class Recipe(Strict):
    """What the loop needs of a method. A partial block in a study's file keeps the rest of the recipe (see `Strict`).

    ClassVars:
        learner_path: "module:Class" of the learner; None where nothing is trained.
        needs_feedback: whether the learner is given labelled feedback images (V-pretraining only).
    """

    learner_path: ClassVar[str | None] = None
    needs_feedback: ClassVar[bool] = False

    method: str
    optimiser: Optimiser = Optimiser(lr=1e-4)
    schedule: Schedule = Schedule()
    training: TrainingOverlay | None = Field(
        default=None, description="What differs from the study's `training` for this method."
    )

    @classmethod
    def learner(cls) -> type[Learner]:
        """Import and return the learner class (this imports torch)."""
        assert cls.learner_path is not None, f"{cls.__name__} trains nothing"
        module, name = cls.learner_path.split(":")
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
