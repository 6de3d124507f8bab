"""What every method's configuration has. Nothing here needs torch; the learner is imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from pydantic import Field

from lowdata_cpt.codeversion import code_version
from lowdata_cpt.config.base import Strict
from lowdata_cpt.training.config import Training

if TYPE_CHECKING:
    from lowdata_cpt.methods.learner import Learner


class Deviation(NamedTuple):
    """One row of the deviations ledger: what the source says, what this study does, why."""

    topic: str
    source: str
    ours: str
    why: str


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


class MethodConfig(Strict):
    """Base of the methods' configurations. Subclasses set `method: Literal[...]`, recipe and ClassVars.

    ClassVars:
        learner_path: "module:Class" of the learner; None where nothing is trained.
        deviations: this method's rows of the deviations ledger.
        needs_feedback: whether the learner is given labelled feedback images (V-pretraining only).
    """

    learner_path: ClassVar[str | None] = None
    deviations: ClassVar[tuple[Deviation, ...]] = ()
    needs_feedback: ClassVar[bool] = False

    method: str
    optimiser: Optimiser = Optimiser(lr=1e-4)
    schedule: Schedule = Schedule()
    training: Training | None = Field(default=None, description="Overrides the study's `training` for this method.")

    @classmethod
    def learner(cls) -> type[Learner]:
        """Import and return the learner class (this imports torch)."""
        assert cls.learner_path is not None, f"{cls.__name__} trains nothing"
        module, name = cls.learner_path.split(":")
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]

    @classmethod
    def code_version(cls) -> str:
        """Return the version of the code that trains this method: its own modules, the loop, what they import."""
        own = cls.__module__.removeprefix("lowdata_cpt.")
        if cls.learner_path is None:
            return code_version(own)
        learner = cls.learner_path.split(":")[0].removeprefix("lowdata_cpt.")
        return code_version(own, learner, "training.prepare")
