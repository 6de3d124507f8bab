"""`make verify`: does what is published follow from what it is said to follow from? One table, three counts.

A row is *held*, *failed*, or *not here*: what it judges is not in git and has not been pulled or made. Only a failure
makes the exit status 1, so that a fresh clone without a remote can be verified as far as it goes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json, sha256_file
from lowdata_cpt.core.paths import CLAIMS, project_file
from lowdata_cpt.core.provenance import MEASURED_FILES, published_records, read_records
from lowdata_cpt.language.config import is_language
from lowdata_cpt.reproduce import dvc_files as dvcfiles
from lowdata_cpt.reproduce.rows import Row, compare, compare_scores, limited, not_here
from lowdata_cpt.study.grid import Cell, cell_of, parse_cell
from lowdata_cpt.study.paths import Paths

DELETED = frozenset({"export"})
"""Folders of a cell that a run deletes when its models are scored (`keep_models: false`)."""


def check_files(study: str, cache: Path | None) -> list[Row]:
    """Hash every file that dvc.lock lists. A study without a lock is not carried by DVC."""
    if not dvcfiles.is_locked(study):
        return [Row("dvc.lock", study, "not here", "DVC does not carry this study")]
    rows: list[Row] = []
    missing: list[Path] = []
    for out in dvcfiles.locked_outs(study):
        found = dvcfiles.differences(out, cache)
        if out.path.name in dvcfiles.BUILT and out.path.exists():
            rows.append(Row("dvc.lock", str(out.path), "held", "built on demand, judged by the tables it shows"))
            continue
        missing += [one.path for one in found if one.problem == "missing"]
        wrong = [one for one in found if one.problem != "missing"]
        if [one.path for one in wrong] == [out.path] and (count := _computed_again(Path("results", study), out.path)):
            detail = f"computed here: {count} artifacts are the published ones, seconds are measured anew"
            rows.append(Row("dvc.lock", str(out.path), "held", detail))
            continue
        if not found:
            count = sum(1 for _ in dvcfiles.files_in(out.path)) if out.path.is_dir() else 1
            rows.append(Row("dvc.lock", str(out.path), "held", f"{count} file(s), md5 {out.md5[:12]}"))
        advice = "`make pull FORCE=1` replaces it"
        rows += limited([Row("dvc.lock", str(one.path), "failed", f"{one.problem}; {advice}") for one in wrong])
    return rows + not_here("dvc.lock", missing, "carried by DVC")


def _computed_again(study: Path, folder: Path) -> int:
    """Return how many published artifacts of a folder were computed again with the same bytes; 0 if any was not.

    For a folder whose listing DVC's cache does not have here: no pull brought it. What holds measured seconds is not
    compared.
    """
    same = [
        (study / name).exists() and sha256_file(study / name) == record["artifact"]["sha256"]
        for name, record in published_records(study).items()
        if (study / name).is_relative_to(folder) and Path(name).name not in MEASURED_FILES
    ]
    return len(same) if same and all(same) else 0


def _deleted(path: Path) -> bool:
    """Whether a run deletes this file itself once it has been read."""
    return path.name in dvcfiles.IGNORED or not DELETED.isdisjoint(path.parts)


def check_provenance(folder: Path) -> list[Row]:
    """Hash every artifact that has a record, and every input that it names; what is deleted by design is left out."""
    wrong: list[Row] = []
    missing: set[Path] = set()
    hashes: dict[Path, str | None] = {}

    def hashed(path: Path) -> str | None:
        if path not in hashes:
            hashes[path] = sha256_file(path) if path.exists() else None
            if hashes[path] is None and not _deleted(path):
                missing.add(path)
        return hashes[path]

    checked = inputs = 0
    for name, facts in read_records(folder).items():
        artifact = folder / name
        found = hashed(artifact)
        checked += found is not None
        if found not in (None, facts["artifact"]["sha256"]):
            wrong.append(Row("provenance", str(artifact), "failed", "sha256 is not the one on record"))
        for given in facts["inputs"]:
            read = hashed(Path(given["path"]))
            inputs += read is not None
            if read not in (None, given["sha256"]):
                wrong.append(Row("provenance", str(artifact), "failed", f"was made from another {given['path']}"))
    rows = limited(wrong)
    if not rows and checked:
        rows = [Row("provenance", str(folder), "held", f"{checked} artifacts and {inputs} inputs, sha256")]
    if not hashes:
        rows = [Row("provenance", str(folder), "not here", "neither provenance.json nor sidecars")]
    return rows + not_here("provenance", list(missing), "artifacts and inputs that git does not keep")


def check_scores(folder: Path, work: Path) -> list[Row]:
    """Collect the table of scores from the cells once more."""
    from lowdata_cpt.analysis.study_files import StudyFiles
    from lowdata_cpt.jobs import collect

    committed = folder / "scores.csv"
    if not committed.exists():
        return [Row("scores", str(committed), "failed", "missing; run `git checkout` on it")]
    named = [Path(one["path"]) for one in read_records(folder).get("scores.csv", {"inputs": []})["inputs"]]
    missing = [path for path in named if not path.exists()]
    if missing or not (folder / "cells").is_dir():
        return not_here("scores", missing or [folder / "cells"], "the cells that scores.csv is collected from")
    collect.collect(collect.read_study(folder / "study.json"), StudyFiles(folder).not_run, Paths(folder), work)
    return [compare_scores(committed, work / "scores.csv")]


def check_statistics(folder: Path, work: Path) -> list[Row]:
    """Compute intervals, tests and ranks from the committed table once more."""
    from lowdata_cpt.analysis.commands import make_statistics

    again = make_statistics(folder, work / "statistics")
    rows = [compare("statistics", folder / path.relative_to(work), path) for path in again]
    return [_without_outcomes(row, folder) for row in rows]


def _without_outcomes(row: Row, folder: Path) -> Row:
    """A table that per-image outcomes enter cannot be made without them; it is not wrong for that."""
    if row.verdict != "failed" or not Path(row.subject).exists() or (folder / "outcomes").is_dir():
        return row
    if not any(name.startswith("outcomes/") for name in read_records(folder)):
        return row
    return row._replace(verdict="not here", detail="made with the per-image outcomes, which are not here")


def check_claims(folder: Path, work: Path) -> list[Row]:
    """Judge the claims from the committed table once more."""
    from lowdata_cpt.analysis.commands import make_claims

    make_claims(folder, project_file(CLAIMS), work, folder.name)
    rows = [compare("claims", folder / name, work / name) for name in ("claims.json", "claims.md")]
    rows = [_without_outcomes(row, folder) for row in rows]
    verdicts = [claim["verdict"] for claim in read_json(work / "claims.json")]
    counted = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in sorted(set(verdicts)))
    return [row._replace(detail=f"{row.detail}; {counted}") if row.subject.endswith("json") else row for row in rows]


def check_figures(folder: Path, work: Path) -> list[Row]:
    """Draw every published figure from the committed tables once more and compare the table behind each."""
    from lowdata_cpt.analysis.commands import make_tables
    from lowdata_cpt.analysis.figures import draw, missing_inputs

    figures = _tables(folder / "figures")
    for path in figures:
        if path.exists() and not missing_inputs(path.stem, folder):
            draw(path.stem, folder, work / "figures")
    make_tables(folder, work / "tables")
    rows = [compare("figure", path, work / path.relative_to(folder)) for path in figures]
    for path in [*_tables(folder / "tables"), *sorted((folder / "tables").glob("*.md"))]:
        rows.append(compare("table", path, work / path.relative_to(folder)))
    return [_without_outcomes(row, folder) for row in rows]


def _tables(folder: Path) -> list[Path]:
    """Return the tables of a folder; one that must be there stands for an empty folder."""
    return sorted(folder.glob("*.csv")) or [folder / "any.csv"]


def check_cell(cell: Cell, folder: Path, device: str) -> list[Row]:
    """Compute one cell from its subset manifest once more."""
    from lowdata_cpt.jobs.pretrain import inputs_of
    from lowdata_cpt.reproduce.recompute import TOLERANCE_FRACTION, TOLERANCE_RELATIVE, recompute

    missing = [path for path in inputs_of(cell.trained, Paths(folder)) if not path.exists()]
    if missing:
        return not_here("cell", missing, "needed to compute the cell again")
    result = recompute(cell, folder, device)
    allowed = f"(tolerance: {TOLERANCE_FRACTION} for fractions, {TOLERANCE_RELATIVE:.0%} for errors)"
    rows: list[Row] = []
    for score in result.scores:
        differing = f"stored {score.stored:.6g}, found {score.found:.6g} {allowed}"
        how = "bit-equal" if score.stored == score.found else differing
        subject = f"{score.task} {score.metric} {score.split} at {score.images_seen} images"
        rows.append(Row("cell", subject, "held" if score.holds else "failed", how))
    if result.same_weights is not None:
        how = (
            "bit-equal to the stored ones" if result.same_weights else "other bits than the stored ones; scores decide"
        )
        rows.append(Row("cell", "trained weights", "held", how))
    return rows


def _guarded(check: str, subject: str, make: Callable[[], list[Row]]) -> list[Row]:
    """Turn any error into a failing row: a damaged file may break its reader anywhere, and the other checks go on."""
    try:
        return make()
    except UserError as error:
        return [Row(check, subject, "failed", str(error))]
    except Exception as error:
        return [Row(check, subject, "failed", f"cannot be read: {type(error).__name__}: {error}")]


def _is_of_language(folder: Path) -> bool:
    """Whether a folder is of a language study; where study.json is damaged, the checks that read it say so."""
    try:
        return is_language(read_json(folder / "study.json"))
    except UserError:
        return False


def verify(study: str, cell: str | None = None, device: str = "auto", cache: Path | None = None) -> Iterator[Row]:
    """Yield the rows of all checks of a study, one check after the other; of one cell only, if it is named.

    Args:
        study: its name.
        cell: BACKBONE/DOMAIN/METHOD/nN/sSEED of a cell to compute again.
        device: where to compute it.
        cache: DVC's cache folder; with it, damaged files of a folder are named.

    Raises:
        UserError: there is no such study, or no such cell in it.
    """
    folder = Path("results", study)
    if not folder.is_dir():
        known = ", ".join(sorted(path.parent.name for path in folder.parent.glob("*/study.json"))) or "none"
        raise UserError(f"{folder}: no such study; there are results of: {known}")
    if cell is not None:
        from lowdata_cpt.jobs.collect import read_study

        parse_cell(cell)  # said before the table: a name that is none is no failure of the study
        found = cell_of(cell, read_study(folder / "study.json"))
        yield from _guarded("cell", cell, lambda: check_cell(found, folder, device))
        return
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        yield from _guarded("dvc.lock", "dvc.lock", lambda: check_files(study, cache))
        yield from _guarded("provenance", str(folder), lambda: check_provenance(folder))
        checks: list[tuple[str, str, Callable[[Path, Path], list[Row]]]] = [
            ("scores", "scores.csv", check_scores),
            ("statistics", "statistics", check_statistics),
            ("claims", "claims.json", check_claims),
            ("figure", "figures", check_figures),
        ]
        if _is_of_language(folder):
            from lowdata_cpt.reproduce import verify_language

            checks = [
                ("scores", "scores.csv", verify_language.check_scores),
                ("report", "statistics.csv", verify_language.check_report),
            ]
        for check, subject, make in checks:
            yield from _guarded(check, f"{folder}/{subject}", partial(make, folder, work))
