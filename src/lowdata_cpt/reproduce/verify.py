"""`make verify`: does what is published follow from what it is said to follow from? One table, one exit status."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json, sha256_file
from lowdata_cpt.core.provenance import SUFFIX, artifact_of
from lowdata_cpt.reproduce import dvc_files as dvcfiles
from lowdata_cpt.study.grid import cell_of
from lowdata_cpt.study.paths import Paths

CLAIMS = Path("config/claims.yaml")
PULL = "run `make pull`"
# Tables are written with six digits: one unit of the last may differ between versions of numpy.
DIGITS = 1e-5
SHOWN = 10
"""Rows for single files in one check at most."""


class Row(NamedTuple):
    """One line of the table: what was checked, what came out."""

    check: str
    subject: str
    verdict: Literal["ok", "differs", "missing"]
    detail: str


def _limited(rows: list[Row]) -> list[Row]:
    """Cut a long list of failures, saying how many were left out."""
    if len(rows) <= SHOWN:
        return rows
    left = len(rows) - SHOWN
    return [*rows[:SHOWN], Row(rows[0].check, f"and {left} more", rows[SHOWN].verdict, rows[SHOWN].detail)]


def check_files(study: str, cache: Path | None) -> list[Row]:
    """Hash every file that dvc.lock lists."""
    rows = []
    for out in dvcfiles.locked_outs(study):
        found = dvcfiles.differences(out, cache)
        if not found:
            count = sum(1 for _ in dvcfiles.files_in(out.path)) if out.path.is_dir() else 1
            rows.append(Row("dvc.lock", str(out.path), "ok", f"{count} file(s), md5 {out.md5[:12]}"))
        rows += _limited(
            [
                Row("dvc.lock", str(one.path), "missing", PULL)
                if one.problem == "missing"
                else Row("dvc.lock", str(one.path), "differs", f"{one.problem}; `make pull FORCE=1` replaces it")
                for one in found
            ]
        )
    return rows


def check_sidecars(folder: Path) -> list[Row]:
    """Hash every artifact that has a sidecar, and every input that it names and that is kept."""
    wrong: list[Row] = []
    hashes: dict[Path, str] = {}
    checked = inputs = 0

    def hashed(path: Path) -> str:
        if path not in hashes:
            hashes[path] = sha256_file(path)
        return hashes[path]

    for sidecar in sorted(folder.rglob(f"*{SUFFIX}")):
        artifact = artifact_of(sidecar)
        facts = read_json(sidecar)
        checked += 1
        if not artifact.exists():
            wrong.append(Row("sidecar", str(artifact), "missing", PULL))
        elif hashed(artifact) != facts["artifact"]["sha256"]:
            wrong.append(Row("sidecar", str(artifact), "differs", "sha256 is not its sidecar's"))
        for given in facts["inputs"]:
            path = Path(given["path"])
            if path.name in dvcfiles.IGNORED:
                continue  # features are deleted once their probes have read them
            inputs += 1
            if not path.exists():
                wrong.append(Row("sidecar", str(path), "missing", f"input of {artifact}; {PULL}"))
            elif hashed(path) != given["sha256"]:
                wrong.append(Row("sidecar", str(artifact), "differs", f"was made from another {path}"))
    if not checked:
        return [Row("sidecar", str(folder), "missing", f"no sidecars; {PULL}")]
    summary = f"{checked} artifacts and {inputs} inputs, sha256"
    return _limited(wrong) or [Row("sidecar", str(folder), "ok", summary)]


def _close(first: Any, second: Any) -> bool:
    """Whether two JSON values are equal, numbers to six digits."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_close(value, second[key]) for key, value in first.items())
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_close, first, second))
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=DIGITS, abs_tol=1e-12) or (math.isnan(first) and math.isnan(second))
    return bool(first == second)


def _compare(check: str, committed: Path, again: Path) -> Row:
    """Compare a committed file with the one made again: by sha256, and tables to six digits."""
    if not committed.exists():
        return Row(check, str(committed), "missing", "run `git checkout` on it")
    if not again.exists():
        return Row(check, str(committed), "missing", f"could not be made again: its input is not here; {PULL}")
    checksum = sha256_file(again)
    if sha256_file(committed) == checksum:
        return Row(check, str(committed), "ok", f"made again, sha256 {checksum[:12]}")
    if committed.suffix == ".csv":
        tables = [pd.read_csv(path, keep_default_na=False).to_dict("list") for path in (committed, again)]
    elif committed.suffix == ".json":
        tables = [read_json(path) for path in (committed, again)]
    else:
        return Row(check, str(committed), "differs", "made again, it is another file")
    if list(tables[0]) == list(tables[1]) and _close(*tables):
        return Row(check, str(committed), "ok", "made again, equal to six digits")
    return Row(check, str(committed), "differs", "made again, its values are others")


def check_scores(folder: Path, work: Path) -> list[Row]:
    """Collect the table of scores from the cells once more."""
    from lowdata_cpt.jobs import collect

    committed = folder / "scores.csv"
    collect.collect(Paths(folder), work)
    found = collect.differences(committed, work / "scores.csv")
    if found:
        return [Row("scores", str(committed), "differs", found)]
    return [Row("scores", str(committed), "ok", f"collected again, {len(pd.read_csv(committed))} rows equal")]


def check_statistics(folder: Path, work: Path) -> list[Row]:
    """Compute intervals, tests and ranks from the committed table once more."""
    from lowdata_cpt.analysis.commands import make_statistics
    from lowdata_cpt.analysis.metrics import write_metrics

    again = make_statistics(folder / "scores.csv", work / "statistics")
    again.append(write_metrics(folder / "scores.csv", work / "statistics" / "metrics.json"))
    return [_compare("statistics", folder / path.relative_to(work), path) for path in again]


def check_claims(folder: Path, work: Path) -> list[Row]:
    """Judge the claims from the committed table once more."""
    from lowdata_cpt.analysis.commands import make_claims

    make_claims(folder / "scores.csv", CLAIMS, work, folder.name)
    rows = [_compare("claims", folder / name, work / name) for name in ("claims.json", "claims.md")]
    verdicts = [claim["verdict"] for claim in read_json(work / "claims.json")]
    counted = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in sorted(set(verdicts)))
    return [row._replace(detail=f"{row.detail}; {counted}") if row.subject.endswith("json") else row for row in rows]


def check_figures(folder: Path, work: Path) -> list[Row]:
    """Draw every figure from the committed tables once more and compare the table behind each."""
    from lowdata_cpt.analysis.commands import make_figures
    from lowdata_cpt.analysis.table import read_scores
    from lowdata_cpt.analysis.tables import write_tables

    make_figures(folder, work / "figures")
    write_tables(read_scores(folder / "scores.csv"), work / "tables")
    rows = [_compare("figure", path, work / path.relative_to(folder)) for path in _tables(folder / "figures")]
    pages = [path for path in sorted((folder / "tables").glob("*.md")) if path.name != "verdicts.md"]
    for path in [*_tables(folder / "tables"), *pages]:
        rows.append(_compare("table", path, work / path.relative_to(folder)))
    known = {path.name for path in _tables(folder / "figures")}
    new = [path.name for path in sorted((work / "figures").glob("*.csv")) if path.name not in known]
    return rows + [Row("figure", name, "missing", "drawn now, but not among the published ones") for name in new]


def _tables(folder: Path) -> list[Path]:
    """Return the tables of a folder; one that must be there stands for an empty folder."""
    return sorted(folder.glob("*.csv")) or [folder / "any.csv"]


def check_cell(name: str, folder: Path, device: str) -> list[Row]:
    """Compute one cell from its subset manifest once more."""
    from lowdata_cpt.jobs.collect import read_study
    from lowdata_cpt.reproduce.recompute import TOLERANCE_FRACTION, TOLERANCE_RELATIVE, recompute

    study = read_study(folder / "study.json")
    result = recompute(folder / "study.json", cell_of(name, study), folder, device)
    rows: list[Row] = []
    for score in result.scores:
        how = "bit-equal" if score.stored == score.found else f"stored {score.stored:.6g}, found {score.found:.6g}"
        subject = f"{score.task} {score.metric} {score.split}"
        rows.append(Row("cell", subject, "ok" if score.holds else "differs", how))
    if any(row.verdict == "differs" for row in rows) or not all(row.detail == "bit-equal" for row in rows):
        allowed = f"tolerance: {TOLERANCE_FRACTION} for fractions, {TOLERANCE_RELATIVE:.0%} for errors"
        rows = [row if row.detail == "bit-equal" else row._replace(detail=f"{row.detail} ({allowed})") for row in rows]
    if result.same_weights is not None:
        how = (
            "bit-equal to the stored ones" if result.same_weights else "other bits than the stored ones; scores decide"
        )
        rows.append(Row("cell", "trained weights", "ok", how))
    return rows


def _guarded(check: str, subject: str, make: Callable[[], list[Row]]) -> list[Row]:
    """Turn any error into a failing row: a damaged file may break its reader anywhere, and the other checks go on."""
    try:
        return make()
    except UserError as error:
        return [Row(check, subject, "missing", str(error))]
    except Exception as error:
        return [Row(check, subject, "differs", f"cannot be read: {type(error).__name__}: {error}")]


def verify(study: str, cell: str | None = None, device: str = "auto", cache: Path | None = None) -> Iterator[Row]:
    """Yield the rows of all checks of a study, one check after the other.

    Args:
        study: its name.
        cell: BACKBONE/DOMAIN/METHOD/nN/sSEED of a cell to compute again.
        device: where to compute it.
        cache: DVC's cache folder; with it, damaged files of a folder are named.
    """
    folder = Path("results", study)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        yield from _guarded("dvc.lock", "dvc.lock", lambda: check_files(study, cache))
        yield from _guarded("sidecar", str(folder), lambda: check_sidecars(folder))
        yield from _guarded("scores", f"{folder}/scores.csv", lambda: check_scores(folder, work))
        yield from _guarded("statistics", f"{folder}/statistics", lambda: check_statistics(folder, work))
        yield from _guarded("claims", f"{folder}/claims.json", lambda: check_claims(folder, work))
        yield from _guarded("figure", f"{folder}/figures", lambda: check_figures(folder, work))
        if cell is not None:
            yield from _guarded("cell", cell, lambda: check_cell(cell, folder, device))


def print_table(rows: list[Row]) -> bool:
    """Print the table and the sum; return whether everything holds."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("check", "what", "verdict", "detail"):
        table.add_column(column, overflow="fold")
    colours = {"ok": "green", "differs": "red", "missing": "yellow"}
    for row in rows:
        table.add_row(row.check, row.subject, f"[{colours[row.verdict]}]{row.verdict}[/]", row.detail)
    console = Console(width=None if Console().is_terminal else 160, markup=True, highlight=False)
    console.print(table)
    failed = [row for row in rows if row.verdict != "ok"]
    console.print(f"\n{len(rows) - len(failed)} of {len(rows)} hold" + (f", {len(failed)} do not" if failed else ""))
    return not failed
