"""What a method's configuration adds to its recipe: its rows of the ledger and the version of its code. Torch-free."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from lowdata_cpt.core.code_versions import code_version
from lowdata_cpt.training.config import Recipe


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
    def code_version(cls) -> str:
        """Return the version of the code that trains this method: its own modules, the loop, what they import."""
        own = cls.__module__.removeprefix("lowdata_cpt.")
        if cls.learner_path is None:
            return code_version(own)
        learner = cls.learner_path.split(":")[0].removeprefix("lowdata_cpt.")
        return code_version(own, learner, "training.prepare")
