"""What a feature pass gives to the probes, and what a probe gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.data.store import Split

Metrics = dict[str, float]


@dataclass(frozen=True)
class Metric:
    """One metric of a probe, as tables and figures show it.

    Attributes:
        name: its name in scores.csv.
        task: the probe that reports it.
        label: its name in figures and tables.
        short: its name where space is short.
        higher: whether a higher value is better.
        bounded: whether it is a fraction in [0, 1].
        relative: whether figures show its gain as % of the reference; otherwise in points (1/100).
        unit: unit of the value, empty for fractions.
        drawn: whether it needs the n drawn images, so that only trained cells report it.
    """

    name: str
    task: str
    label: str
    short: str
    higher: bool = True
    bounded: bool = True
    relative: bool = False
    unit: str = ""
    drawn: bool = False

    @property
    def gain_unit(self) -> str:
        """Unit of the gain that figures show."""
        return "%" if self.relative else "points"


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
        selected: what was chosen on validation (`lr` or `c`), and every candidate's score there
            (`val_<metric>`); empty where nothing is chosen.
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
