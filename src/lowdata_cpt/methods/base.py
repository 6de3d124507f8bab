"""What a method's configuration adds to its recipe: facts, rows of the ledger, version of its code. Torch-free."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator, Field

from lowdata_cpt.methods.facts import Deviation, Facts, read_deviations
from lowdata_cpt.training.config import Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from lowdata_cpt.backbones.vit import ViT


def _ascending(scale: tuple[float, float]) -> tuple[float, float]:
    if scale[0] > scale[1]:
        raise ValueError("expected the smaller area first")
    return scale


Area = Annotated[float, Field(gt=0, le=1)]
Scale = Annotated[tuple[Area, Area], AfterValidator(_ascending)]
"""Smallest and largest area of a random crop, as fractions of the image."""
Blocks = Annotated[int, Field(ge=1, le=64)]
Width = Annotated[int, Field(ge=1, le=2**16)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Temperature = Annotated[float, Field(gt=0, le=100)]
Prototypes = Annotated[int, Field(ge=2, le=2**20)]


class MethodConfig(Recipe):
    """Base of the methods' configurations. Subclasses set `method: Literal[...]`, recipe and ClassVars.

    ClassVars:
        facts: see `Facts`.
        learner_path, needs_feedback: see `Recipe`.
    """

    facts: ClassVar[Facts]

    @classmethod
    def deviations(cls) -> tuple[Deviation, ...]:
        """Return the method's rows of the ledger: those of deviations.yaml in its folder, else those of its facts."""
        path = Path(inspect.getfile(cls)).with_name("deviations.yaml")
        return read_deviations(path) if path.exists() else cls.facts.deviations

    @classmethod
    def module_beside(cls, name: str) -> ModuleType | None:
        """Import a module of the method's folder (`cost`, `diagnostics`), None where it has none."""
        path = f"{cls.__module__.rpartition('.')[0]}.{name}"
        return importlib.import_module(path) if importlib.util.find_spec(path) else None

    @classmethod
    def has_diagnostics(cls) -> bool:
        """Whether the method's folder has a `diagnostics` module; this imports nothing."""
        return importlib.util.find_spec(f"{cls.__module__.rpartition('.')[0]}.diagnostics") is not None

    @classmethod
    def code_modules(cls) -> tuple[str, ...]:
        """Return the modules that decide this method's weights, with what they import: its own, and the loop."""
        own = cls.__module__.removeprefix("lowdata_cpt.")
        if cls.learner_path is None:
            return (own,)
        return own, cls.learner_path.split(":")[0].removeprefix("lowdata_cpt."), "training.prepare"

    def misfits(self, width: int, depth: int, patches: int) -> Iterator[str]:
        """Yield what of these settings a backbone cannot have: key, value, what is allowed.

        Args:
            width: of the backbone's tokens.
            depth: number of its blocks.
            patches: along one side of a training view.
        """
        yield from ()

    def untrained_state(self, vit: ViT, pool: NDArray[np.uint8], seed: int) -> dict[str, Tensor]:
        """Return the weights of a method that trains nothing, as timm opens them.

        Args:
            vit: the released backbone.
            pool: the domain's unlabelled images, uint8 [N, H, W, 3].
            seed: of the cell.
        """
        raise AssertionError(f"{type(self).__name__} is trained")
