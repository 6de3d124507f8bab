"""What a feature pass gives to the probes, and what a probe gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.data.store import Split

Metrics = dict[str, float]


@dataclass
class FeatureSet:
    """Features of a frozen backbone, by name of the image set.

    Attributes:
        cls: float32 [M, D], class tokens after the final norm, not normalised.
        patches: float16 [M, h, w, D], patch tokens; only of sets with dense labels.
        augmented: float32 [M, D], class tokens of each image augmented once; only where a probe asks for them.
    """

    cls: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    patches: dict[str, NDArray[np.float16]] = field(default_factory=dict)
    augmented: dict[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass
class ProbeResult:
    """What one probe found.

    Attributes:
        metrics: of val and test.
        selected: what was chosen on validation, and every candidate's score there.
        counts: images per split, classes.
        outcomes: per test image, in the order of the test set (see the probes); the test metrics are theirs.
        examples: predictions of the first test images, or their neighbours.
    """

    metrics: dict[Split, Metrics]
    selected: dict[str, Any]
    counts: dict[str, Any]
    outcomes: dict[str, NDArray[Any]]
    examples: dict[str, NDArray[Any]]

    def summary(self) -> dict[str, Any]:
        """Return what evaluation.json holds."""
        return {"metrics": self.metrics, "selected": self.selected, "counts": self.counts}
