"""The grid: which cells a study has and where their files lie. No torch, no workflow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lowdata_cpt.config.study import Study
from lowdata_cpt.data.store import Task

PROBE_OF_TASK: dict[Task, str] = {"classification": "linear", "segmentation": "segmentation", "depth": "depth"}
PROBES = tuple(PROBE_OF_TASK.values())


class Cell(NamedTuple):
    """One cell of the grid. `n` is 0 for methods that train nothing."""

    backbone: str
    domain: str
    method: str
    n: int
    seed: int

    def folder(self, study: str) -> Path:
        """Return the cell's folder."""
        return Path("results", study, "cells", self.backbone, self.domain, self.method, f"n{self.n}", f"s{self.seed}")

    @property
    def model(self) -> Cell:
        """The cell whose model and features this one is probed with: `base` is the same model for every seed."""
        return self._replace(seed=0) if self.method == "base" else self


def cells(study: Study) -> Iterator[Cell]:
    """Yield every cell of the grid once, in the order in which the study names backbones, domains and methods."""
    for backbone in study.backbones:
        for domain, settings in study.domains.items():
            for method, config in study.methods.items():
                for n in sorted(settings.sizes) if config.learner_path else (0,):
                    if not _wanted(study, backbone, domain, method, n):
                        continue
                    for seed in study.seeds:
                        yield Cell(backbone, domain, method, n, seed)


def _wanted(study: Study, backbone: str, domain: str, method: str, n: int) -> bool:
    """Say whether a block of `grid` has this cell (all cells are wanted where there is no `grid`)."""
    return study.grid is None or any(
        (block.backbones is None or backbone in block.backbones)
        and (block.domains is None or domain in block.domains)
        and (block.methods is None or method in block.methods)
        and (block.sizes is None or n == 0 or n in block.sizes)
        for block in study.grid
    )


def pairs(study: Study) -> list[tuple[str, str]]:
    """Return every (backbone, domain) that has cells."""
    return list(dict.fromkeys((cell.backbone, cell.domain) for cell in cells(study)))


def probes_of(study: Study, domain: str) -> tuple[str, ...]:
    """Return the probes a domain's labels allow."""
    return tuple(PROBE_OF_TASK[task] for task in study.domains[domain].tasks())


def shown_cells(study: Study, backbone: str, domain: str) -> list[Cell]:
    """Return the cells on a domain's qualitative sheet: each method at its largest n, first seed."""
    largest = {
        c.method: c for c in cells(study) if (c.backbone, c.domain, c.seed) == (backbone, domain, study.seeds[0])
    }
    return list(largest.values())
