"""The grid: which cells a study has and where their files lie. No torch, no workflow."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple, cast

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.methods.registry import by_name
from lowdata_cpt.probes.registry import probes_of_tasks
from lowdata_cpt.study.config import Block, Study
from lowdata_cpt.study.paths import Paths


class Cell(NamedTuple):
    """One cell of the grid. `n` is 0 for methods that train nothing; in patterns the fields are wildcards."""

    backbone: str
    domain: str
    method: str
    n: int
    seed: int

    @property
    def name(self) -> str:
        """Return BACKBONE/DOMAIN/METHOD/nN/sSEED: how a cell is named on the command line and in paths."""
        return f"{self.backbone}/{self.domain}/{self.method}/n{self.n}/s{self.seed}"

    @property
    def trained(self) -> Cell:
        """The cell whose training this one evaluates: what does not depend on a seed is one model for all seeds."""
        method = by_name().get(self.method)
        return self if method is None or method.facts.seeded else self._replace(seed=0)


NUMBER = "(0|[1-9][0-9]{0,17})"
"""In a cell's name, written one way only."""
ANY = Cell("{backbone}", "{domain}", "{method}", cast(int, "{n}"), cast(int, "{seed}"))
"""Every cell, for the patterns of Snakemake's rules."""


def parse_cell(text: str) -> Cell:
    """Return the cell that `BACKBONE/DOMAIN/METHOD/nN/sSEED` names.

    Raises:
        UserError: not of that form.
    """
    match = re.fullmatch(f"([^/]+)/([^/]+)/([^/]+)/n{NUMBER}/s{NUMBER}", text.strip("/"))
    if match is None:
        raise UserError(f"cell {text[:200]!r}: expected BACKBONE/DOMAIN/METHOD/nN/sSEED")
    return Cell(match[1], match[2], match[3], int(match[4]), int(match[5]))


def cell_of(text: str, study: Study) -> Cell:
    """Return the cell of a study's grid that `text` names.

    Raises:
        UserError: not a cell's name, or the study has no such cell.
    """
    cell, known = parse_cell(text), list(cells(study))
    if cell not in known:
        raise UserError(f"cell {text!r}: study {study.study} has no such cell; it has for example {known[-1].name}")
    return cell


def cells(study: Study) -> Iterator[Cell]:
    """Yield every cell of the grid once: block by block, and in each in the order in which the study names its parts.

    A study is worked off in that order as far as its jobs are free to run, so the first blocks are done first.
    """
    seen: set[Cell] = set()
    for block in study.grid or (Block(),):
        for backbone in block.backbones or study.backbones:
            for domain in block.domains or study.domains:
                for method in block.methods or study.methods:
                    for n in _sizes(study, block, domain, method):
                        for seed in block.seeds or study.seeds:
                            cell = Cell(backbone, domain, method, n, seed)
                            if cell not in seen:
                                seen.add(cell)
                                yield cell


def _sizes(study: Study, block: Block, domain: str, method: str) -> tuple[int, ...]:
    """Return the numbers of images a block asks of a domain; (0,) for a method that trains nothing."""
    if not study.methods[method].learner_path:
        return (0,)
    return tuple(n for n in sorted(study.domains[domain].sizes) if block.sizes is None or n in block.sizes)


def split_absent(study: Study) -> tuple[Study, dict[str, str]]:
    """Return the study without the domains whose data is not on this machine, and why each is left out.

    With `absent_data: stop`, and for domains that are decoded already, nothing is left out.

    Raises:
        UserError: no domain is left.
    """
    reasons: dict[str, str] = {}
    if study.absent_data == "skip":
        for name, domain in study.domains.items():
            decoded = Paths(Path("results", study.study)).manifest(name).exists()
            if not decoded and (reason := domain.absent()):
                reasons[name] = reason
    if not reasons:
        return study, {}
    if len(reasons) == len(study.domains):
        lines = "\n".join(f"  {name}: {reason}" for name, reason in reasons.items())
        raise UserError(f"study {study.study!r}: the data of no domain is on this machine\n{lines}")
    return only(study, {cell for cell in cells(study) if cell.domain not in reasons}), reasons


def only(study: Study, kept: Collection[Cell]) -> Study:
    """Return the study with these cells alone, and without what only other cells used.

    Args:
        study: a study.
        kept: some of its cells; with a cell the base of its backbone, domain and seed.
    """
    left = [cell for cell in cells(study) if cell in kept]
    if left == list(cells(study)):
        return study
    seeds: dict[tuple[str, str, str, int], list[int]] = {}
    for cell in left:
        seeds.setdefault(cell[:4], []).append(cell.seed)
    blocks = tuple(
        Block(
            backbones=(backbone,),
            domains=(domain,),
            methods=tuple(dict.fromkeys(("base", method))),
            sizes=(n,) if n else None,
            seeds=tuple(numbers),
        )
        for (backbone, domain, method, n), numbers in seeds.items()
    )
    names = {kind: {getattr(cell, kind) for cell in left} for kind in ("backbone", "domain", "method")}
    sizes = study.probes.image_sizes
    return study.model_copy(
        update={
            "grid": blocks,
            "backbones": {k: v for k, v in study.backbones.items() if k in names["backbone"]},
            "domains": {k: v for k, v in study.domains.items() if k in names["domain"]},
            "methods": {k: v for k, v in study.methods.items() if k in names["method"]},
            "diagnostics": {
                domain: found
                for domain, methods in study.diagnostics.items()
                if domain in names["domain"] and (found := tuple(m for m in methods if m in names["method"]))
            },
            "probes": study.probes.model_copy(
                update={"image_sizes": {k: v for k, v in sizes.items() if k in names["domain"]}}
            ),
        }
    )


def pairs(study: Study) -> list[tuple[str, str]]:
    """Return every (backbone, domain) that has cells."""
    return list(dict.fromkeys((cell.backbone, cell.domain) for cell in cells(study)))


def probes_of(study: Study, domain: str) -> tuple[str, ...]:
    """Return the probes a domain's labels allow."""
    return probes_of_tasks(study.domains[domain].tasks())


def diagnosed(study: Study) -> list[Cell]:
    """Return the cells that are looked into, one for each named domain and method: first backbone, smallest n, seed.

    They are cells of the grid, first in the study's order; a pair that the grid has no cell of is left out.
    """
    backbones, grid = list(study.backbones), list(cells(study))
    found = []
    for domain, methods in study.diagnostics.items():
        for method in methods:
            of = [cell for cell in grid if (cell.domain, cell.method) == (domain, method)]
            first = min(of, key=lambda c: (backbones.index(c.backbone), c.n, study.seeds.index(c.seed)), default=None)
            found += [first] if first else []
    return found


def shown_cells(study: Study, backbone: str, domain: str) -> list[Cell]:
    """Return the cells on a domain's qualitative sheet: each method at its largest n, first seed that is run there."""
    there = [cell for cell in cells(study) if (cell.backbone, cell.domain) == (backbone, domain)]
    first = min((study.seeds.index(cell.seed) for cell in there), default=0)
    largest: dict[str, Cell] = {}
    for cell in there:
        if cell.seed == study.seeds[first] and cell.n >= largest.get(cell.method, cell).n:
            largest[cell.method] = cell
    return list(largest.values())
