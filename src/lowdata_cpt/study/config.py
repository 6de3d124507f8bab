"""The configuration of a study: what is in the grid, how long it trains, how it is probed."""

from __future__ import annotations

import functools
import operator
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from lowdata_cpt.core.strict import Strict
from lowdata_cpt.data.domain import Domain
from lowdata_cpt.data.registry import DOMAINS
from lowdata_cpt.methods.base import MethodConfig
from lowdata_cpt.methods.registry import METHODS, untrained
from lowdata_cpt.probes.registry import Probes
from lowdata_cpt.training.config import Training

NAME = r"^[a-z0-9][a-z0-9_]*$"
Name = Annotated[str, Field(pattern=NAME)]


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
        pattern=r"^(timm|random|embedded:[a-z0-9_]+|file:.+)$",
        description="timm (its hub), embedded:imgfocus (ships in a package), file:<safetensors>, or random.",
    )
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$", description="Expected sha256 of a weights file.")
    image_size: int = Field(default=224, ge=16, description="Side in pixels of training views and probe images.")

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
    sizes: tuple[int, ...] | None = Field(
        default=None, min_length=1, description="Of the domains' `sizes`; rows that train nothing have none."
    )
    seeds: tuple[int, ...] | None = Field(default=None, min_length=1, description="Of the study's `seeds`.")


class Resources(Strict):
    """What a job asks for and how it runs. Not part of any result's identity: changing it re-runs nothing."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=1, ge=1, description="CPU threads of a training or feature job.")
    gpu: int = Field(default=0, ge=0, description="GPUs of a training, feature or dense-probe job.")
    mem_mb: int = Field(default=4000, ge=256)
    runtime: int = Field(default=120, ge=1, description="Minutes a training job may take.")
    checkpoint_seconds: float = Field(default=300.0, gt=0)


class Study(Strict):
    """A whole study. One file of this shape is one study."""

    study: Name = Field(description="Name of the study and of its folder in results/.")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1, description="Paired: every method gets the same ones.")
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
        if len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise ValueError(f"seeds are {list(seeds)}; expected whole numbers from 0 that differ from each other")
        return seeds

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

    @model_validator(mode="after")
    def _has_sizes(self) -> Self:
        for name in self.methods:
            try:
                self.training_of(name)
            except ValidationError as error:
                said = "; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())
                raise ValueError(f"methods.{name}.training: {said}") from None
        if any(m.learner_path for m in self.methods.values()):
            empty = [name for name, domain in self.domains.items() if not domain.sizes]
            if empty:
                raise ValueError(f"domains {empty} have no `sizes`, but there are methods to train")
        if "base" not in self.methods:
            raise ValueError("methods must have `base`: every gain is measured from it")
        for domain, methods in self.diagnostics.items():
            if domain not in self.domains or not set(methods) <= set(self.methods):
                raise ValueError(f"diagnostics.{domain}: {list(methods)} must be of `domains` and `methods`")
            if silent := [name for name in methods if not self.methods[name].has_diagnostics()]:
                raise ValueError(f"diagnostics.{domain}: methods {silent} have nothing to show of their inside")
        if unknown := [name for name in self.probes.image_sizes if name not in self.domains]:
            raise ValueError(f"probes.image_sizes: {unknown} are not in `domains`; there are {list(self.domains)}")
        return self

    @model_validator(mode="after")
    def _grid_fits(self) -> Self:
        if self.grid is None:
            return self
        if not self.grid:
            raise ValueError("grid has no block; leave it out for the full product")
        for i, block in enumerate(self.grid):
            self._check_block(i, block)
        for kind in ("backbones", "domains", "methods"):
            blocks = [getattr(block, kind) for block in self.grid]
            used = set(getattr(self, kind)) if None in blocks else {name for block in blocks for name in block}
            if idle := [name for name in getattr(self, kind) if name not in used]:
                raise ValueError(f"{kind} {idle} are in no block of `grid`")
        return self

    def _check_block(self, i: int, block: Block) -> None:
        """Hold a block to the names and sizes that the study has, and to having `base`."""
        for kind in ("backbones", "domains", "methods"):
            known = list(getattr(self, kind))
            if unknown := [name for name in getattr(block, kind) or () if name not in known]:
                raise ValueError(f"grid.{i}.{kind}: {unknown} are not in `{kind}`; there are {known}")
        if block.methods is not None and "base" not in block.methods:
            raise ValueError(f"grid.{i}.methods must have `base`: every gain is measured from it")
        if strange := sorted(set(block.seeds or ()) - set(self.seeds)):
            raise ValueError(f"grid.{i}.seeds: {strange} are not in `seeds`; there are {list(self.seeds)}")
        for name in block.domains or self.domains:
            sizes = self.domains[name].sizes
            if block.sizes is not None and not set(block.sizes) & set(sizes):
                raise ValueError(f"grid.{i}.sizes {list(block.sizes)}: domain {name!r} has none of them, but {sizes}")
        offered = {n for name in block.domains or self.domains for n in self.domains[name].sizes}
        if unknown_sizes := sorted(set(block.sizes or ()) - offered):
            raise ValueError(f"grid.{i}.sizes: none of the block's domains has {unknown_sizes} in its `sizes`")

    @model_validator(mode="after")
    def _probe_sizes_fit(self) -> Self:
        """Find a size that is no multiple of a patch here: the model itself says so only after its training."""
        for block in self.grid or (Block(),):
            for domain in block.domains or self.domains:
                for name in block.backbones or self.backbones:
                    patch = re.search(r"patch(\d+)", self.backbones[name].model)
                    size = self.probes.image_sizes.get(domain)
                    if patch and size and size % int(patch[1]):
                        raise ValueError(
                            f"probes.image_sizes.{domain}: {size} is not a multiple of {name}'s patch size {patch[1]}"
                        )
        return self

    @model_validator(mode="after")
    def _feedback_has_labels(self) -> Self:
        dense = {"segmentation", "depth"}
        for block in self.grid or (Block(),):
            methods = [name for name in block.methods or self.methods if self.methods[name].needs_feedback]
            blind = [name for name in block.domains or self.domains if not dense & set(self.domains[name].labelled)]
            if methods and blind:
                raise ValueError(f"methods {methods} need segmentation or depth labels, which domains {blind} lack")
        return self
