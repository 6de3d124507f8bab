"""The files of a study's folder as the analysis reads them, each once."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from lowdata_cpt.analysis.claims import Result
from lowdata_cpt.analysis.outcomes import Outcomes, read_outcomes
from lowdata_cpt.analysis.preconditions import check_preconditions
from lowdata_cpt.analysis.style import BEFORE_OF, is_variant, step_zeros
from lowdata_cpt.analysis.summary import by_domain, main_sizes
from lowdata_cpt.analysis.table import COST_COLUMNS, GEOMETRY_COLUMNS, at_end, read_curves, read_scores, read_table
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json
from lowdata_cpt.core.provenance import check, of_study

OWN_IMAGES = "imagefolder"


def read_settings(study_dir: Path) -> dict[str, Any]:
    """Return a study's resolved configuration, `study.json`; {} where it is not here.

    Raises:
        UserError: it is damaged, or its methods and domains are no mappings of names to settings.
    """
    path = study_dir / "study.json"
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


def read_checks(study_dir: Path) -> pd.DataFrame:
    """Return `check_preconditions` of a study's `curves.csv`, `study.json` and `cost.csv`; empty without curves.

    Raises:
        UserError: one of the files is wrong.
    """
    files = {name: study_dir / name for name in ("curves.csv", "cost.csv")}
    if not files["curves.csv"].exists():
        return pd.DataFrame()
    cost = read_table(files["cost.csv"], (*COST_COLUMNS, "steps")) if files["cost.csv"].exists() else None
    return check_preconditions(read_curves(files["curves.csv"]), read_settings(study_dir), cost)


def read_not_run(study_dir: Path) -> dict[str, str]:
    """Return what a study asks for and its table lacks: `<domain>`, or `<domain>/<method>/n<n>`, and the reason.

    Raises:
        UserError: `not_run.json` is there, but no mapping of names to reasons.
    """
    path = study_dir / "not_run.json"
    found = read_json(of_study(path)) if path.exists() else {}
    if not isinstance(found, dict) or not all(isinstance(reason, str) for reason in found.values()):
        raise UserError(f"{path}: expected a mapping of domains to reasons")
    return found


def read_absent(study_dir: Path) -> dict[str, str]:
    """Return the domains that were left out, as their data is not on the machine or no cell is finished: the reason.

    Raises:
        UserError: as `read_not_run`.
    """
    return {name: reason for name, reason in read_not_run(study_dir).items() if "/" not in name}


def read_waiting(study_dir: Path) -> dict[tuple[str, str], int]:
    """Return the largest n that is not run yet, by domain and method, of the domains that are in the table.

    Raises:
        UserError: as `read_not_run`.
    """
    found: dict[tuple[str, str], int] = {}
    for name in read_not_run(study_dir):
        if (parts := re.fullmatch(r"([^/]+)/([^/]+)/n(\d+)", name)) is not None:
            domain, method, n = parts.groups()
            found[domain, method] = max(int(n), found.get((domain, method), 0))
    return found


def read_results(path: Path) -> list[Result]:
    """Read `claims.json`.

    Raises:
        UserError: not a list of judged claims.
    """
    found = read_json(check(path))
    try:
        return [Result.model_validate(one) for one in found]
    except (TypeError, ValueError):
        raise UserError(f"{path}: expected a list of judged claims, as `make_claims` writes it") from None


def read_before(study_dir: Path) -> dict[str, str]:
    """Return each method's step zero, by its settings in `study.json`; without the file that of each method's source.

    Raises:
        UserError: the file is wrong.
    """
    settings = read_settings(study_dir)
    return step_zeros(settings.get("methods", {})) if settings else BEFORE_OF


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
    def checks(self) -> pd.DataFrame:
        """Which methods acted, as `check_preconditions`; empty without `curves.csv`."""
        return read_checks(self.folder)

    @cached_property
    def before(self) -> dict[str, str]:
        """Each method's step zero, as `read_before`."""
        return read_before(self.folder)

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
        return read_results(path) if path.exists() else []

    @cached_property
    def own(self) -> bool:
        """Whether `study.json` names folders of own images only: its reader asks about these, not about domains."""
        domains = read_settings(self.folder).get("domains", {})
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
    def seconds(self) -> dict[tuple[str, str, str, int], float]:
        """Seconds of training by (backbone, domain, method, n): the median, as one run may have had company."""
        ends = at_end(self.main[self.main["n"] > 0])
        found = ends.groupby(["backbone", "domain", "method", "n"])["train_seconds"].median()
        return {cell: float(value) for cell, value in zip(found.index, found, strict=True)}

    @cached_property
    def machine(self) -> str:
        """What training's seconds were, `on one CPU core (wall time)`; nothing where they are of several devices."""
        if not {"device", "threads"} <= set(self.cost):
            return ""
        trained = self.cost.loc[self.cost["images_seen"] > 0, ["device", "threads"]].drop_duplicates()
        if len(trained) != 1:
            return ""
        device, threads = trained.iloc[0]
        cores = "one CPU core" if int(threads) == 1 else f"{int(threads)} CPU cores"
        return f"on {cores if device == 'cpu' else f'one {device}'} (wall time)"
