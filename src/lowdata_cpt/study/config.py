"""The configuration of a study: what is in the grid, how long it trains, how it is probed."""

from __future__ import annotations

import functools
import operator
import reprlib
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from lowdata_cpt.backbones.flops import geometry, has_weights
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.strict import Strict
from lowdata_cpt.data.domain import Domain
from lowdata_cpt.data.registry import DOMAINS
from lowdata_cpt.methods.base import MethodConfig
from lowdata_cpt.methods.registry import METHODS, untrained
from lowdata_cpt.probes.registry import Probes
from lowdata_cpt.training.config import Training

NAME = r"^[a-z0-9][a-z0-9_]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=64)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Size = Annotated[int, Field(ge=1, le=10**7)]


def _named(tag: str, members: tuple[type[Strict], ...]) -> BeforeValidator:
    """Let `diet_cp: {}` stand for `diet_cp: {method: diet_cp}`: an entry is of the kind it is named after.

    The schema of what may be written lists every member; one without `tag` cannot be told from the others there.
    """

    def fill(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            name: {tag: name, **(entry or {})} if entry is None or isinstance(entry, dict) else entry
            for name, entry in value.items()
        }

    entry: Any = functools.reduce(operator.or_, members) | None
    return BeforeValidator(fill, json_schema_input_type=dict[str, entry])


def _union(members: tuple[type[Strict], ...], tag: str) -> Any:
    """Build the discriminated union of an explicit list of models."""
    union: Any = functools.reduce(operator.or_, members)
    return Annotated[union, Field(discriminator=tag)] if len(members) > 1 else union


if TYPE_CHECKING:
    MethodEntry = MethodConfig
    DomainEntry = Domain
else:
    MethodEntry = _union(METHODS, "method")
    DomainEntry = _union(DOMAINS, "kind")


class Backbone(Strict):
    """A released backbone: a timm ViT and where its weights come from."""

    model: str = Field(
        description="timm model name, e.g. vit_small_patch14_dinov2 or vit_base_patch16_dinov3.lvd1689m."
    )
    weights: str = Field(
        default="timm",
        pattern=r"^(timm|random|embedded:imgfocus|file:.+)$",
        description="timm (its hub), embedded:imgfocus (ships in a package), file:<safetensors>, or random.",
    )
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$", description="Expected sha256 of a weights file.")
    image_size: int = Field(
        default=224, ge=16, le=4096, description="Side in pixels of training views and probe images."
    )

    @field_validator("model")
    @classmethod
    def _is_a_plain_vit(cls, model: str) -> str:
        try:
            geometry(model)
        except UserError as error:
            raise ValueError(str(error)) from None
        return model

    @field_validator("image_size")
    @classmethod
    def _is_whole_patches(cls, size: int, info: ValidationInfo) -> int:
        model = info.data.get("model")
        if model and size % (patch := geometry(model).patch):
            raise ValueError(f"expected a multiple of the patch size of {model}, {patch}")
        return size

    @field_validator("weights")
    @classmethod
    def _has_released_weights(cls, weights: str, info: ValidationInfo) -> str:
        model = info.data.get("model")
        if model and weights == "timm" and not has_weights(model):
            raise ValueError(f"timm has no released weights of {model}; expected embedded:, file: or random")
        return weights

    @model_validator(mode="after")
    def _sha256_is_of_a_file(self) -> Self:
        if self.sha256 and not self.weights.startswith(("file:", "embedded:")):
            raise ValueError(
                f"sha256 is of a weights file, but weights are `{self.weights}`; expected file: or embedded:"
            )
        return self


class Block(Strict):
    """A part of the grid: the product of the named entries; a key that is left out stands for all of the study's."""

    backbones: tuple[Name, ...] | None = Field(default=None, min_length=1)
    domains: tuple[Name, ...] | None = Field(default=None, min_length=1)
    methods: tuple[Name, ...] | None = Field(default=None, min_length=1)
    sizes: tuple[Size, ...] | None = Field(
        default=None, min_length=1, description="Of the domains' `sizes`; rows that train nothing have none."
    )
    seeds: tuple[Seed, ...] | None = Field(default=None, min_length=1, description="Of the study's `seeds`.")

    @field_validator("backbones", "domains", "methods", "sizes", "seeds")
    @classmethod
    def _distinct(cls, given: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if given and len(set(given)) != len(given):
            raise ValueError(f"{reprlib.repr(list(given))}: expected each once")
        return given


class Resources(Strict):
    """What a job asks for and how it runs. Not part of any result's identity: changing it re-runs nothing."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=1, ge=1, le=1024, description="CPU threads of a training or feature job.")
    gpu: int = Field(default=0, ge=0, le=64, description="GPUs of a training, feature or dense-probe job.")
    mem_mb: int = Field(default=4000, ge=256, le=10**8)
    runtime: int = Field(default=120, ge=1, le=525_600, description="Minutes a training job may take.")
    checkpoint_seconds: float = Field(default=300.0, gt=0, le=604_800)


class Study(Strict):
    """A whole study. One file of this shape is one study."""

    study: Name = Field(description="Name of the study and of its folder in results/.")
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1, description="Paired: every method gets the same ones.")
    backbones: dict[Name, Backbone] = Field(min_length=1)
    domains: Annotated[dict[Name, DomainEntry], _named("kind", DOMAINS)] = Field(min_length=1)
    methods: Annotated[dict[Name, MethodEntry], _named("method", METHODS)] = Field(min_length=1)
    grid: tuple[Block, ...] | None = Field(
        default=None, description="Blocks whose cells make up the study; null: the full product."
    )
    training: Training
    probes: Probes = Probes()
    resources: Resources = Resources()
    absent_data: Literal["stop", "skip"] = Field(
        default="stop",
        description="Where a domain's folder is missing: stop with an error, or report its cells as not run and go on.",
    )
    diagnostics: dict[Name, tuple[Name, ...]] = Field(
        default={},
        description="Domain -> methods whose first cell (smallest n, first seed) is trained once more to look inside.",
    )
    keep_models: bool = Field(default=True, description="Keep each cell's weights; false keeps scores and logs only.")

    def training_of(self, method: str) -> Training:
        """Return how a method is trained: the study's `training` with the method's own over it."""
        overlay = self.methods[method].training
        return self.training if overlay is None else overlay.over(self.training)

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"seeds are {list(seeds)}; expected whole numbers from 0 that differ from each other")
        return seeds

    @field_validator("grid")
    @classmethod
    def _once(cls, grid: tuple[Block, ...] | None) -> tuple[Block, ...] | None:
        for number, block in enumerate(grid or ()):
            if (first := (grid or ()).index(block)) != number:
                raise ValueError(f"block {number} is block {first} once more; expected each once")
        return grid

    @field_validator("domains")
    @classmethod
    def _sizes(cls, domains: dict[str, Domain]) -> dict[str, Domain]:
        for name, domain in domains.items():
            if len(set(domain.sizes)) != len(domain.sizes) or min(domain.sizes, default=1) < 1:
                raise ValueError(f"{name}: sizes are {list(domain.sizes)}; expected numbers from 1, each once")
        return domains

    @field_validator("methods")
    @classmethod
    def _untrained(cls, methods: dict[str, MethodConfig]) -> dict[str, MethodConfig]:
        for name, method in methods.items():
            kinds = {name, method.method}
            if len(kinds) == 2 and kinds & set(untrained()):
                raise ValueError(f"{name} is of method {method.method}; what trains nothing keeps its own name")
        return methods
