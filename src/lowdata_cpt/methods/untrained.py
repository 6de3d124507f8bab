"""The rows every table carries that train nothing: the released backbone as it is, and a random one."""

from __future__ import annotations

from typing import Literal

from lowdata_cpt.methods.base import MethodConfig


class Base(MethodConfig):
    """Step 0: the released backbone, untouched."""

    method: Literal["base"] = "base"


class Random(MethodConfig):
    """The same architecture, randomly initialised from the seed: the floor that a pretrained backbone must beat."""

    method: Literal["random"] = "random"
