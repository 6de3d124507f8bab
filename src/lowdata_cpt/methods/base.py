"""What a method's configuration adds to its recipe: its rows of the ledger and the version of its code. Torch-free."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from lowdata_cpt.core.code_versions import code_version
from lowdata_cpt.training.config import Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from lowdata_cpt.backbones.vit import ViT


class Deviation(NamedTuple):
    """One row of the deviations ledger: what the source says, what this study does, why."""

    topic: str
    source: str
    ours: str
    why: str


class MethodConfig(Recipe):
    """Base of the methods' configurations. Subclasses set `method: Literal[...]`, recipe and ClassVars.

    ClassVars:
        deviations: this method's rows of the deviations ledger.
    """

    deviations: ClassVar[tuple[Deviation, ...]] = ()

    @classmethod
    def has_diagnostics(cls) -> bool:
        """Whether the method's folder has a `diagnostics` module."""
        return importlib.util.find_spec(f"{cls.__module__.rpartition('.')[0]}.diagnostics") is not None

    @classmethod
    def code_modules(cls) -> tuple[str, ...]:
        """Return the modules that decide this method's weights, with what they import: its own, and the loop."""
        own = cls.__module__.removeprefix("lowdata_cpt.")
        if cls.learner_path is None:
            return (own,)
        return own, cls.learner_path.split(":")[0].removeprefix("lowdata_cpt."), "training.prepare"

    @classmethod
    def code_version(cls) -> str:
        """Return the version of the code that makes this method's weights."""
        return code_version(*cls.code_modules())

    def untrained_state(self, vit: ViT, pool: NDArray[np.uint8], seed: int) -> dict[str, Tensor]:
        """Return the weights of a method that trains nothing, as timm opens them.

        Args:
            vit: the released backbone.
            pool: the domain's unlabelled images, uint8 [N, H, W, 3].
            seed: of the cell.
        """
        raise AssertionError(f"{type(self).__name__} is trained")
