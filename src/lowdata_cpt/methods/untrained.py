"""The rows that train nothing: the released backbone as it is, the same normalised anew, and a random one."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from lowdata_cpt.methods.base import MethodConfig
from lowdata_cpt.methods.facts import Facts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from lowdata_cpt.backbones.vit import ViT


class Base(MethodConfig):
    """Step 0: the released backbone, untouched."""

    facts: ClassVar[Facts] = Facts(
        label="Base (no training)", color="#000000", marker="*", role="untrained", trains="nothing", seeded=False
    )

    method: Literal["base"] = "base"

    def untrained_state(self, vit: ViT, pool: NDArray[np.uint8], seed: int) -> dict[str, Tensor]:
        """Return the weights as they are."""
        return vit.timm_state()


class BaseDomainNorm(MethodConfig):
    """The released backbone on images normalised with the domain's mean and standard deviation: DIET-CP's own step 0.

    The statistics are those of the unlabelled pool; they are folded into the patch embedding.
    """

    facts: ClassVar[Facts] = Facts(
        label="Base (no training), domain norm",
        color="#000000",
        marker="*",
        line=":",
        filled=False,
        role="untrained",
        trains="nothing; the domain's normalisation is folded into the patch embedding",
        seeded=False,
    )

    method: Literal["base_domain_norm"] = "base_domain_norm"

    @classmethod
    def code_modules(cls) -> tuple[str, ...]:
        """Return this module and the arithmetic that it imports when it is asked for weights."""
        return "methods.untrained", "backbones.normalisation", "vision.images"

    def untrained_state(self, vit: ViT, pool: NDArray[np.uint8], seed: int) -> dict[str, Tensor]:
        """Return the weights with the pool's statistics folded in."""
        from lowdata_cpt.backbones.normalisation import fold
        from lowdata_cpt.vision.images import channel_statistics

        mean, std = channel_statistics(pool)
        return fold(vit.timm_state(), (mean, [deviation or 1.0 for deviation in std]), (vit.mean, vit.std))


class Random(MethodConfig):
    """The same architecture, randomly initialised from the seed: the floor that a pretrained backbone must beat."""

    facts: ClassVar[Facts] = Facts(
        label="Random init", color="#b0b0b0", marker="x", line=":", role="untrained", trains="nothing"
    )

    method: Literal["random"] = "random"

    def untrained_state(self, vit: ViT, pool: NDArray[np.uint8], seed: int) -> dict[str, Tensor]:
        """Return freshly drawn weights."""
        vit.randomise(seed)
        return vit.timm_state()
