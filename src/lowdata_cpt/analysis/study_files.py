"""The files of a study's folder as the analysis reads them, each once."""

from __future__ import annotations

import re
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from lowdata_cpt.analysis.claims import Result
from lowdata_cpt.analysis.outcomes import Outcomes, read_outcomes
from lowdata_cpt.analysis.preconditions import CELL, Cell, cell_of, check_preconditions
from lowdata_cpt.analysis.style import BEFORE_OF, is_variant, step_zeros
from lowdata_cpt.analysis.summary import by_domain, main_sizes
from lowdata_cpt.analysis.table import (
    COST_COLUMNS,
    GEOMETRY_COLUMNS,
    at_end,
    read_curves,
    read_scores,
    read_table,
    records,
)
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json
from lowdata_cpt.core.provenance import check, of_study

OWN_IMAGES = "imagefolder"


class StudyFiles:
    """A study's folder; every property raises `UserError` where its file is wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def scores(self) -> pd.DataFrame:
        """`scores.csv`; it must be there."""
        return read_scores(self.folder / "scores.csv")

    @cached_property
    def outcomes(self) -> Outcomes:
        """The outcomes of the test images, empty without `outcomes/`."""
        return read_outcomes(self.folder)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """`study.json`, the resolved configuration; {} without it."""
        path = self.folder / "study.json"
        if not path.exists():
            return {}
        found = read_json(of_study(path))
        blocks = [found.get(kind, {}) for kind in ("methods", "domains")] if isinstance(found, dict) else [None]
        entries = [entry for block in blocks if isinstance(block, dict) for entry in block.values()]
        inner = [entry.get("optimiser", {}) for entry in entries if isinstance(entry, dict)]
        if not all(isinstance(one, dict) for one in (*blocks, *entries, *inner)):
            raise UserError(f"{path}: expected a study's settings, with methods and domains by name")
        settings: dict[str, Any] = found
        return settings

    @cached_property
    def checks(self) -> pd.DataFrame:
        """Which methods acted, as `check_preconditions`; empty without `curves.csv`."""
        if not (self.folder / "curves.csv").exists():
            return pd.DataFrame()
        path = self.folder / "cost.csv"
        cost = read_table(path, (*COST_COLUMNS, "steps")) if path.exists() else None
        return check_preconditions(self.curves, self.settings, cost)

    @cached_property
    def before(self) -> dict[str, str]:
        """Each method's step zero, by its settings in `study.json`; without the file that of each method's source."""
        return step_zeros(self.settings.get("methods", {})) if self.settings else BEFORE_OF

    @cached_property
    def not_run(self) -> dict[str, str]:
        """What the study asks for and its table lacks: `<domain>`, or `<domain>/<method>/n<n>`, and the reason."""
        path = self.folder / "not_run.json"
        found = read_json(of_study(path)) if path.exists() else {}
        if not isinstance(found, dict) or not all(isinstance(reason, str) for reason in found.values()):
            raise UserError(f"{path}: expected a mapping of domains to reasons")
        return found

    @cached_property
    def absent(self) -> dict[str, str]:
        """The domains that were left out, as their data is not on the machine or no cell is finished: the reason."""
        return {name: reason for name, reason in self.not_run.items() if "/" not in name}

    @cached_property
    def waiting(self) -> dict[tuple[str, str], int]:
        """The largest n that is not run yet, by domain and method, of the domains that are in the table."""
        found: dict[tuple[str, str], int] = {}
        for name in self.not_run:
            if (parts := re.fullmatch(r"([^/]+)/([^/]+)/n(\d+)", name)) is not None:
                domain, method, n = parts.groups()
                found[domain, method] = max(int(n), found.get((domain, method), 0))
        return found

    @cached_property
    def cost(self) -> pd.DataFrame:
        """`cost.csv`, empty without it."""
        path = self.folder / "cost.csv"
        return read_table(path, COST_COLUMNS) if path.exists() else pd.DataFrame(columns=list(COST_COLUMNS))

    @cached_property
    def geometry(self) -> pd.DataFrame:
        """`geometry.csv`, of a study without labels; empty without it."""
        path = self.folder / "geometry.csv"
        return read_table(path, GEOMETRY_COLUMNS) if path.exists() else pd.DataFrame(columns=list(GEOMETRY_COLUMNS))

    @cached_property
    def curves(self) -> pd.DataFrame:
        """`curves.csv`; it must be there."""
        return read_curves(self.folder / "curves.csv")

    @cached_property
    def claims(self) -> list[Result]:
        """The judged claims, none without `claims.json`."""
        path = self.folder / "claims.json"
        try:
            return [Result.model_validate(one) for one in read_json(check(path))] if path.exists() else []
        except (TypeError, ValueError):
            raise UserError(f"{path}: expected a list of judged claims, as `make_claims` writes it") from None

    @cached_property
    def own(self) -> bool:
        """Whether `study.json` names folders of own images only: its reader asks about these, not about domains."""
        domains = self.settings.get("domains", {})
        return bool(domains) and all(domain.get("kind") == OWN_IMAGES for domain in domains.values())

    @cached_property
    def main(self) -> pd.DataFrame:
        """The untrained rows of `scores`, and of each domain's main n the trained ones without variants."""
        chosen = main_sizes(self.scores)
        shown = (chosen["n"] == 0) | ~chosen["method"].map(is_variant).astype(bool)
        return chosen[shown].reset_index(drop=True)

    @cached_property
    def gains(self) -> pd.DataFrame:
        """`by_domain` of `main`, gains over base only."""
        table = by_domain(self.main, self.outcomes)
        return table if table.empty else table[table["family"] == "base"].reset_index(drop=True)

    @cached_property
    def devices(self) -> dict[Cell, str]:
        """What each trained cell's seconds are of: `one CPU core`; a cell whose seeds differ in it has none."""
        if not {"device", "threads"} <= set(self.cost):
            return {}
        found: dict[Cell, set[str]] = {}
        for row in records(self.cost[self.cost["images_seen"] > 0]):
            cores = "one CPU core" if int(row["threads"]) == 1 else f"{row['threads']} CPU cores"
            found.setdefault(cell_of(row), set()).add(cores if row["device"] == "cpu" else f"one {row['device']}")
        return {cell: names.pop() for cell, names in found.items() if len(names) == 1}

    @cached_property
    def spent(self) -> dict[Cell, str]:
        """How long a cell trained, `7 minutes on one CPU core (wall time)`; the median: a run may have had company."""
        runs = at_end(self.main[self.main["n"] > 0]) if (self.folder / "scores.csv").exists() else self.cost
        runs = runs[runs["images_seen"] > 0]
        found: dict[Cell, str] = {}
        for row in records(runs.groupby(CELL)["train_seconds"].median().reset_index()):
            device = self.devices.get(cell_of(row))
            found[cell_of(row)] = f"{time_words(row['train_seconds'])} " + (
                f"on {device} (wall time)" if device else "of training"
            )
        return found


def study_files(folder: Path) -> StudyFiles:
    """Return the files of a folder, those of the last call while none has changed: a process draws many figures."""
    paths = [path for place in (folder, folder / "outcomes") for path in sorted(place.glob("*")) if path.is_file()]
    return _unchanged(folder.absolute(), tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths))


@lru_cache(maxsize=1)
def _unchanged(folder: Path, state: tuple[tuple[Path, int, int], ...]) -> StudyFiles:
    return StudyFiles(folder)


def time_words(seconds: float) -> str:
    """Return a duration as a person says it."""
    for size, unit in ((3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= 0.95 * size:
            count = round(seconds / size, 1) if size == 3600 and seconds < 10 * size else round(seconds / size)
            return f"{count:g} {unit}{'s' * (count != 1)}"
    return "less than a second"
