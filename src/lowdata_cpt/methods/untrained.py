"""The rows every table carries that train nothing: the released backbone as it is, and a random one."""

from __future__ import annotations

from typing import Literal

from lowdata_cpt.core.code_versions import code_version
from lowdata_cpt.methods.base import MethodConfig


class Base(MethodConfig):
    """Step 0: the released backbone, untouched."""

    method: Literal["base"] = "base"


class BaseDomainNorm(MethodConfig):
    """The released backbone on images normalised with the domain's mean and standard deviation: DIET-CP's own step 0.

    The statistics are those of the unlabelled pool; they are folded into the patch embedding.
    """

    method: Literal["base_domain_norm"] = "base_domain_norm"

    @classmethod
    def code_version(cls) -> str:
        """Return the version of what this row is made by."""
        return code_version("methods.untrained", "backbones.normalisation", "training.prepare")


class Random(MethodConfig):
    """The same architecture, randomly initialised from the seed: the floor that a pretrained backbone must beat."""

    method: Literal["random"] = "random"
