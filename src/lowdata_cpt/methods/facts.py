"""What a method says of itself beside its recipe: how it is drawn, what it is compared with, when it acted. Torch-free.

No score depends on what is written here, so none of it counts as code of a score (`core.code_versions`); verdicts and
figures do, and their rules name this module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import yaml

# A target that is normalised over the tokens of an image leaves a constant predictor with 1 − 1/tokens: .96 at 25
# tokens, .98 at 49; one that is normalised over a patch's values with 1.00 (588 or 768 values).
NORMALISED = 0.95
NOISE = 0.02  # nats: what the mean over the last steps of a run that learns nothing moves by


class Deviation(NamedTuple):
    """One row of the deviations ledger: what the source says, what this study does, why."""

    topic: str
    source: str
    ours: str
    why: str


@dataclass(frozen=True)
class Precondition:
    """What one part of a method's log must show before a gain or a loss is called the method's.

    Attributes:
        part: its name in the log; a run that does not log it is not held to it.
        below: the level that its end must stay below: a number, or ln of images (`ln n`) or prototypes (`ln K`).
        margin: how far below.
        positive: instead, positive on more than half of its steps, beyond chance (one-sided binomial test, p < .05).
    """

    part: str
    below: float | Literal["ln n", "ln K"] = 0.0
    margin: float = 0.0
    positive: bool = False

    def level(self, n: int, prototypes: float) -> float:
        """Return the value that the part is held against."""
        if self.positive:
            return 0.5
        trivial = {"ln n": float(n), "ln K": prototypes}.get(str(self.below))
        return (float(self.below) if trivial is None else math.log(trivial)) - self.margin


@dataclass(frozen=True)
class SourceBudget:
    """The run of a method in its source: images seen, updates, peak rate; `per_image` of n if it counts epochs."""

    images: float
    updates: float
    lr: float
    per_image: bool = False


@dataclass(frozen=True)
class Facts:
    """What is known of a method before it runs. Its place in `registry.METHODS` is its place in every figure and table.

    Attributes:
        label: printed name.
        color: hexadecimal, of the colour-blind-safe palette of Okabe and Ito; grey for controls.
        marker: matplotlib's letter.
        trains: which weights it moves, in one line.
        role: an untrained reference, the control of other methods, or a method that the study is about.
        line: matplotlib's line style.
        filled: whether its marker is; open ones are variants of the row whose colour they share.
        control: the method it is compared with at equal images seen.
        step_zero: the untrained row from which its source measures its gain.
        paper: short citation with the arXiv number.
        acts: what its log must show for a verdict to be about the method; all of it.
        source_budget: the run in its source, None where the source states none.
        passes: operations per image seen, in forward passes of the backbone; a `cost` module in the method's folder
            says it from the settings instead (see `study.flops`).
        seeded: whether its weights depend on the seed.
        deviations: rows of the ledger of a method that is one file; a folder has them in deviations.yaml.
    """

    label: str
    color: str
    marker: str
    trains: str
    role: Literal["untrained", "control", "method"] = "method"
    line: Literal["-", "--", ":"] = "-"
    filled: bool = True
    control: str | None = None
    step_zero: str = "base"
    paper: str = ""
    acts: tuple[Precondition, ...] = ()
    source_budget: SourceBudget | None = None
    passes: float = 3.0
    seeded: bool = True
    deviations: tuple[Deviation, ...] = ()


def read_deviations(path: Path) -> tuple[Deviation, ...]:
    """Read a method's rows of the ledger: a YAML list of `topic`, `source`, `ours`, `why`.

    Raises:
        ValueError: a row has other keys, or a value that is no text.
    """
    rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    for row in rows:
        if list(row) != list(Deviation._fields) or not all(isinstance(value, str) for value in row.values()):
            raise ValueError(f"{path}: {row} is no row; expected text under {', '.join(Deviation._fields)}")
    return tuple(Deviation(**row) for row in rows)
