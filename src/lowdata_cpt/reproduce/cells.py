"""Finished cells in git, so that a study of many hours goes on in any checkout from where it was left.

`make pack` puts what a study's tables are made from into results/<study>/finished/<backbone>-<domain>-<method>.zip:
scores, outcomes of test images, cost, log, and how they came about; the weights are not among it. `make restore` puts
it back where Snakemake looks for it: those cells that are of today's configuration, code and data.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import atomic_path, sha256_bytes, sha256_file
from lowdata_cpt.core.provenance import sidecar_path
from lowdata_cpt.jobs.pretrain import inputs_of
from lowdata_cpt.reproduce.dvc import config_file, snakemake
from lowdata_cpt.study import job_params
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.grid import Cell, cells, pairs, shown_cells, split_absent
from lowdata_cpt.study.load import load
from lowdata_cpt.study.paths import Paths

FINISHED = "finished"
OF_TRAINING = ("cost.json", "log.csv", "cost.json.prov.json")
OF_SCORES = ("evaluation.json", "outcomes.npz", "evaluation.json.prov.json", "outcomes.npz.prov.json")
EXAMPLES = "examples.npz"
SAME_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every entry of an archive: equal cells give equal bytes."""

Entries = dict[str, bytes]
"""Name below n<n>/s<seed>/ of an archive -> content."""


class Restored(NamedTuple):
    """How many cells a study has, how many were put in place, and why others were not."""

    cells: int
    placed: int
    refused: dict[str, str]


def archive_of(folder: Path, cell: Cell) -> Path:
    """Return the archive that holds a cell of the study in `folder`."""
    return folder / FINISHED / f"{cell.backbone}-{cell.domain}-{cell.method}.zip"


def finished(study: Study, paths: Paths) -> list[Cell]:
    """Return the cells that are scored, of places whose released backbone is scored for the same seed."""
    done = {cell for cell in cells(study) if _is_whole(cell, paths)}
    return [cell for cell in cells(study) if cell in done and cell._replace(method="base", n=0) in done]


def _is_whole(cell: Cell, paths: Paths) -> bool:
    return (paths.cell(cell) / OF_SCORES[0]).exists() and (paths.cell(cell.trained) / OF_TRAINING[0]).exists()


def pack(study: Study, paths: Paths) -> list[Path]:
    """Write the archives of a study's finished cells; of cells that are not here the packed ones stay.

    Returns:
        The archives, sorted.

    Raises:
        UserError: an archive is damaged.
    """
    shown = {cell for pair in pairs(study) for cell in shown_cells(study, *pair)}
    archives: dict[Path, list[Cell]] = {}
    for cell in cells(study):
        archives.setdefault(archive_of(paths.root, cell), []).append(cell)
    written = []
    for archive, members in archives.items():
        packed, entries = _read(archive), Entries()
        for cell in members:
            place = f"n{cell.n}/s{cell.seed}/"
            old = {name: content for name, content in packed.items() if name.startswith(place)}
            new = _files_of(cell, paths, with_examples=cell in shown)
            # A cell that was computed again with equal scores stays as it was packed: seconds are measurements.
            same = not new or new[place + OF_SCORES[0]] == old.get(place + OF_SCORES[0])
            entries |= old if same and old else new
        if entries and entries != packed:
            _write(archive, entries)
        if entries:
            written.append(archive)
    for stale in set((paths.root / FINISHED).glob("*.zip")) - set(written):
        stale.unlink()
    return sorted(written)


def _files_of(cell: Cell, paths: Paths, *, with_examples: bool) -> Entries:
    """Return entry -> content of a cell's files; nothing of a cell that is not scored yet."""
    folder = paths.cell(cell)
    if not _is_whole(cell, paths):
        return {}
    wanted = [*OF_SCORES, *(OF_TRAINING if cell == cell.trained else ()), *([EXAMPLES] if with_examples else [])]
    return {f"n{cell.n}/s{cell.seed}/{name}": (folder / name).read_bytes() for name in wanted}


def _read(archive: Path) -> Entries:
    if not archive.exists():
        return {}
    try:
        with zipfile.ZipFile(archive) as stored:
            return {name: stored.read(name) for name in stored.namelist()}
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise UserError(f"{archive}: damaged ({error}); `git checkout` on it brings it back") from None


def _write(archive: Path, entries: Entries) -> None:
    with atomic_path(archive) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as stored:
        for name in sorted(entries):
            stored.writestr(zipfile.ZipInfo(name, SAME_DATE), entries[name], zipfile.ZIP_DEFLATED, 9)


def restore(name: str) -> Restored:
    """Put a study's packed cells in place; data, backbones and draws are made first, and what is there stays.

    Args:
        name: of the study; its configuration is config/<name>.yaml.

    Raises:
        UserError: the configuration is wrong, an archive is damaged, or an input cannot be made.
    """
    study, _ = split_absent(load(config_file(name)))
    paths = Paths(Path("results", study.study))
    packed = {cell: _of_cell(cell, paths.root) for cell in cells(study)}
    packed = {cell: entries for cell, entries in packed.items() if OF_SCORES[0] in entries}
    absent = [cell for cell in packed if not (paths.cell(cell) / OF_SCORES[0]).exists()]
    if not absent:
        return Restored(len(list(cells(study))), 0, {})
    snakemake(name, "--", *sorted({str(path) for cell in absent for path in inputs_of(cell, paths)}))
    placed, refused = [], {}
    for cell in absent:
        training = packed.get(cell.trained, {})
        if why := _difference(study, cell, paths, packed[cell], training):
            refused[cell.name] = why
            continue
        for of, entries in ((cell.trained, training), (cell, packed[cell])):
            for file, content in entries.items():
                target = paths.cell(of) / file
                target.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(target) as temporary:
                    temporary.write_bytes(content)
        placed.append(cell)
    if placed:
        # Snakemake notes what they were made with, so that a later change of it is noticed.
        made = {paths.cell(cell) / OF_SCORES[0] for cell in placed}
        made |= {paths.cell(cell.trained) / OF_TRAINING[0] for cell in placed}
        snakemake(name, "--touch", "--", *sorted(map(str, made)))
    return Restored(len(list(cells(study))), len(placed), refused)


def _of_cell(cell: Cell, folder: Path) -> Entries:
    place = f"n{cell.n}/s{cell.seed}/"
    entries = _read(archive_of(folder, cell))
    return {name.removeprefix(place): content for name, content in entries.items() if name.startswith(place)}


def _difference(study: Study, cell: Cell, paths: Paths, scores: Entries, training: Entries) -> str | None:
    """Say why a packed cell is not what this checkout would compute; None if it is."""
    if OF_TRAINING[0] not in training:
        return "its training is not packed"
    for name, entries, params in (
        (OF_TRAINING[0], training, job_params.pretrain_params(study, cell.trained)),
        (OF_SCORES[0], scores, job_params.evaluate_params(study, cell)),
    ):
        record = json.loads(entries[sidecar_path(name).name])
        if name == OF_SCORES[0] and sha256_bytes(entries[name]) != record["artifact"]["sha256"]:
            return f"{name} is not the file that its record describes"
        if differing := _differing(record["config"], json.loads(job_params.dump(params))):
            return f"made with another {differing}"
        for given in record["inputs"]:
            path = Path(given["path"])
            if "export" not in path.parts and sha256_file(path) != given["sha256"]:
                return f"made from another {path}"
    return None


def _differing(recorded: Any, now: Any, place: str = "") -> str:
    """Return the first setting in which two configurations differ; empty if there is none."""
    if isinstance(recorded, dict) and isinstance(now, dict):
        found = (
            _differing(recorded.get(key), now.get(key), f"{place}.{key}" if place else key)
            for key in sorted(recorded | now)
        )
        return next((one for one in found if one), "")
    return "" if recorded == now else place
