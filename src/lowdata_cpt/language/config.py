"""A language study: its learners, arms, data and lengths. Torch-free.

Source of the defaults: V-pretraining (arXiv 2601.22108), LoRA branch; what it does not state is in `deviations.yaml`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.strict import Strict
from lowdata_cpt.language.text import KINDS, held_out
from lowdata_cpt.study.config import Name, Resources, Seed
from lowdata_cpt.study.load import parsed, read
from lowdata_cpt.training.config import Batch, Optimiser, Recipe, Schedule, Steps, Training

Arm = Literal["next_token", "uniform_topk", "self_distillation", "random_feedback", "v_pretraining_text"]
ARMS: tuple[Arm, ...] = get_args(Arm)
"""In the order of figures and tables: plain continued pretraining, the controls, the method."""
BASE = "base"
"""The name of a learner's start, beside its arms."""
Mixture = dict[Literal["prose", *KINDS], Annotated[float, Field(ge=0, le=1)]]  # type: ignore[valid-type]
Count = Annotated[int, Field(ge=1, le=10**8)]
Width = Annotated[int, Field(ge=8, le=2**14)]
Layers = Annotated[int, Field(ge=1, le=256)]


class ByteModel(Strict):
    """A causal transformer over bytes with random weights, which the study pretrains itself."""

    kind: Literal["bytes"] = "bytes"
    architecture: Literal["llama", "qwen2"] = "llama"
    hidden: Width = 128
    layers: Annotated[int, Field(ge=2, le=256)] = 5
    heads: Annotated[int, Field(ge=1, le=256)] = 4
    intermediate: Width = 352

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden is {self.hidden}; expected a multiple of 2 · heads, {2 * self.heads}")
        return self


class HubModel(Strict):
    """Released weights: a folder below $LOWDATA_DATA/models, or the Hugging Face hub."""

    kind: Literal["hub"] = "hub"
    name: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="Hub name, e.g. Qwen/Qwen2.5-0.5B.")
    revision: str = "main"


PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The matrices of a block, of both architectures that the project builds."""


class LoRA(Strict):
    """The low-rank branch; without it every weight is trained."""

    rank: int = Field(default=8, ge=1, le=4096)
    alpha: int = Field(default=16, ge=1, le=10**6)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    targets: tuple[str, ...] = Field(default=PROJECTIONS, min_length=1)


class Length(Strict):
    """How long and how a run trains, in optimiser steps or in passes over its windows."""

    steps: Steps | None = None
    epochs: Annotated[int, Field(ge=1, le=1000)] | None = None
    batch_size: Batch = Field(default=32, description="Windows per optimiser step.")
    accumulation: Batch = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    optimiser: Optimiser = Optimiser(lr=2e-4, weight_decay=0.0, clip=1.0)
    schedule: Schedule = Schedule(warmup=0.03)
    milestones: int = Field(default=4, ge=1, le=100, description="Evaluations, evenly spaced; the last at the end.")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of `steps` and `epochs`")
        try:  # the rules of the loop that these settings are for
            self.training(1)
            self.recipe(BASE)
        except ValidationError as error:
            raise ValueError("; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())) from None
        return self

    def training(self, windows: int) -> Training:
        """Return this as the training loop's settings, for a stream of `windows`; its images are windows."""
        steps = self.steps or (self.epochs or 1) * math.ceil(windows / self.batch_size)
        return Training(
            epochs=math.ceil(steps / math.ceil(windows / self.batch_size)),
            max_steps=steps,
            batch_size=self.batch_size,
            accumulation=self.accumulation,
            precision=self.precision,
            milestones=tuple(sorted({_seen(steps * i // self.milestones, windows, self.batch_size)
                                     for i in range(1, self.milestones)} - {0})),
        )  # fmt: skip

    def recipe(self, arm: str) -> Recipe:
        """Return optimiser and schedule as the loop reads them."""
        return Recipe(method=arm, optimiser=self.optimiser, schedule=self.schedule)


def _seen(steps: int, windows: int, batch: int) -> int:
    """Return how many windows `steps` steps see."""
    epochs, within = divmod(steps, math.ceil(windows / batch))
    return epochs * windows + min(within * batch, windows)


class Learner(Strict):
    """A model and how it is continued."""

    model: Annotated[ByteModel | HubModel, Field(discriminator="kind")]
    lora: LoRA | None = None
    window: int = Field(default=1024, ge=16, le=2**17, description="Tokens of a packed training window.")
    whole: bool = Field(default=False, description="Cut no document that fits in a window; padding fills the rest.")
    training: Length
    pretraining: Length | None = Field(default=None, description="How a model of random weights gets its start.")

    @model_validator(mode="after")
    def _has_a_start(self) -> Self:
        if (self.model.kind == "bytes") != (self.pretraining is not None):
            raise ValueError("`pretraining` is for models of kind bytes, and they need it")
        if self.lora and self.model.kind == "bytes" and (unknown := set(self.lora.targets) - set(PROJECTIONS)):
            raise ValueError(f"lora.targets: {sorted(unknown)}; expected some of {', '.join(PROJECTIONS)}")
        return self


class Designer(Strict):
    """φ: candidates, gate and network of the soft targets, and how they are taught."""

    candidates: int = Field(default=64, ge=2, le=4096, description="K, the true next token included.")
    alpha_max: float = Field(default=0.5, ge=0, le=0.5, description="Largest share that leaves the true token.")
    hidden: Width = 256
    layers: Layers = 6
    heads: Annotated[int, Field(ge=1, le=256)] = 4
    lr: float = Field(default=1e-4, ge=0, le=1)
    every: int = Field(default=8, ge=1, le=10**6, description="r: learner's steps between two updates of φ.")
    burn_in: int = Field(default=0, ge=0, le=10**8, description="Steps on one-hot targets, φ taught already.")
    last_layers: Layers = Field(default=2, description="S: the last layers, on which V is taken.")
    value_batch: Batch = Field(default=4, description="Windows of the value's batch.")
    feedback_batch: Batch = Field(default=16, description="Solved problems of one feedback gradient.")

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden is {self.hidden}; expected a multiple of 2 · heads, {2 * self.heads}")
        return self


class Generated(Strict):
    """Arithmetic word problems of several kinds, mixed with prose; see `text`."""

    kind: Literal["generated"] = "generated"
    seed: Seed = 0
    target: Literal[KINDS] = "change"  # type: ignore[valid-type]
    pretraining_tokens: Count
    stream_tokens: Count
    pretraining: Mixture
    stream: Mixture

    @field_validator("pretraining", "stream")
    @classmethod
    def _is_a_mixture(cls, given: dict[str, float]) -> dict[str, float]:
        if abs(sum(given.values()) - 1) > 1e-6:
            raise ValueError(f"the shares add up to {sum(given.values()):g}; expected 1")
        return given


class Source(Strict):
    """One set of the hub, in a local folder below $LOWDATA_DATA."""

    name: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="Its name on the hub; the folder is its last part.")
    files: str = Field(description="Pattern of its parquet or JSON-lines files in that folder.")
    question: str = "question"
    answer: str = "answer"

    @field_validator("files")
    @classmethod
    def _is_below_the_folder(cls, given: str) -> str:
        parts = given.split("/")
        if {"", ".", ".."} & set(parts) or any("**" in part and part != "**" for part in parts):
            raise ValueError(f"{given!r}: expected a pattern of files below the set's folder, such as data/*.parquet")
        return given


class Hub(Strict):
    """A stream, feedback and test problems of the hub."""

    kind: Literal["hub"] = "hub"
    seed: Seed = 0
    stream: Source
    feedback: Source
    test: Source


class Evaluation(Strict):
    """What is scored at each milestone."""

    problems: int = Field(default=512, ge=1, le=10**6, description="Held-out problems; all where there are fewer.")
    prose_windows: int = Field(default=64, ge=1, le=10**6)
    new_tokens: int = Field(default=64, ge=1, le=4096, description="Most tokens of an answer.")
    batch_size: Batch = 128


class LanguageStudy(Strict):
    """One file of this shape is one language study."""

    kind: Literal["language"]
    study: Name
    seeds: tuple[Seed, ...] = Field(min_length=1)
    learners: dict[Name, Learner] = Field(min_length=1)
    arms: tuple[Arm, ...] = Field(default=ARMS, min_length=1)
    designer: Designer = Designer()
    data: Annotated[Generated | Hub, Field(discriminator="kind")]
    feedback: int = Field(default=1024, ge=2, le=10**6, description="Solved problems that teach φ.")
    evaluation: Evaluation = Evaluation()
    resources: Resources = Resources()
    keep_models: bool = False

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds) or len(set(self.arms)) < len(self.arms):
            raise ValueError("seeds and arms are to be named once each")
        if "next_token" not in self.arms:
            raise ValueError("arms must have `next_token`: every gain is measured from it")
        if isinstance(self.data, Generated):
            try:
                held_out(self.data.target, (self.evaluation.problems, self.feedback), self.data.seed)
            except UserError as error:
                raise ValueError(str(error)) from None
        for name, learner in self.learners.items():
            if self.data.kind == "hub" and learner.pretraining and learner.pretraining.epochs:
                raise ValueError(f"learners.{name}.pretraining needs `steps` where the data is of the hub")
            if isinstance(learner.model, ByteModel) and learner.model.layers < self.designer.last_layers:
                raise ValueError(
                    f"learners.{name} has {learner.model.layers} layers; designer.last_layers asks for more"
                )
            steps = learner.training.steps
            for key in ("every", "burn_in"):
                if steps is not None and getattr(self.designer, key) >= steps:
                    raise ValueError(
                        f"designer.{key} is {getattr(self.designer, key)}; expected fewer than the {steps} steps of "
                        f"learners.{name}.training, so that φ teaches"
                    )
        return self


def is_language(raw: Any) -> bool:
    """Say whether a configuration, or study.json's content, is of a language study."""
    return isinstance(raw, dict) and raw.get("kind") == "language"


def validate(raw: Any, where: str = "config") -> LanguageStudy:
    """Validate a configuration that was read already.

    Raises:
        UserError: one message with a line for every error.
    """
    return parsed(LanguageStudy, raw, where)


def load(path: str | Path) -> LanguageStudy:
    """Read and validate a language study's file.

    Raises:
        UserError: missing, not YAML, of another kind, or wrong.
    """
    raw = read(Path(path))
    if not is_language(raw):
        raise UserError(f"{path}: kind is {raw.get('kind')!r}; expected `kind: language`, as in config/language.yaml")
    return validate(raw, str(path))
