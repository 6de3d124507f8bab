"""Finished cells in git, so that a study of many hours goes on in any checkout from where it was left.

`make pack` puts what a study's tables are made from into results/<study>/finished/<backbone>-<domain>-<method>.zip:
scores, outcomes of test images, cost, log, and how they came about; of a language study, whose start has few weights,
those too. What is too large for one file in git goes on in `….zip.01`, `….zip.02`. `make restore` puts it back where
Snakemake looks for it: those cells that are of today's configuration, code and data.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import atomic_path, sha256_bytes, sha256_file
from lowdata_cpt.core.provenance import SUFFIX, sidecar_path
from lowdata_cpt.reproduce.dvc import config_file, snakemake
from lowdata_cpt.reproduce.packed_cells import COST, SCORES, Packed, packed_cells
from lowdata_cpt.study import job_params

SAME_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every entry of an archive: equal cells give equal bytes."""

LARGEST = 1_900_000
"""Bytes of one file of an archive: below 2 MiB, the most that git is to keep of one."""

Entries = dict[str, bytes]
"""Name below a cell's place in an archive -> content."""


class Restored(NamedTuple):
    """How many cells a study has, how many were put in place, and why others were not."""

    cells: int
    placed: int
    refused: dict[str, str]


def pack(name: str) -> list[Path]:
    """Write the archives of a study's finished cells; of cells that are not here the packed ones stay.

    Args:
        name: of the study; its configuration is config/<name>.yaml.

    Returns:
        The archives' files, sorted.

    Raises:
        UserError: the configuration is wrong, or an archive is damaged.
    """
    archives: dict[Path, list[Packed]] = {}
    for cell in packed_cells(config_file(name), absent_too=True):
        archives.setdefault(cell.archive, []).append(cell)
    written = []
    for archive, members in archives.items():
        packed, entries = _read(archive), Entries()
        for cell in members:
            old = {name: content for name, content in packed.items() if name.startswith(cell.place)}
            # One that came from its archive may be without examples.
            here = [name for name in cell.files if cell.is_finished and (cell.folder / name).exists()]
            new = {cell.place + name: (cell.folder / name).read_bytes() for name in here}
            # A cell that was computed again with equal scores stays as it was packed: seconds are measurements.
            same = new.get(cell.place + SCORES) == old.get(cell.place + SCORES) and _settings(new) == _settings(old)
            entries |= old if old and (same or not new) else new
        if entries and entries != packed:
            _write(archive, entries)
        if entries:
            written += _files(archive)
    for stale in {path for archive in archives for path in archive.parent.glob("*.zip*")} - set(written):
        stale.unlink()
    return sorted(written)


def _settings(entries: Entries) -> list[Any]:
    """Return what each file of a cell was made with, as its record says."""
    return [json.loads(content)["config"] for name, content in sorted(entries.items()) if name.endswith(SUFFIX)]


def _files(archive: Path) -> list[Path]:
    """Return the files of an archive, which are one when laid end to end."""
    return [archive, *sorted(archive.parent.glob(f"{archive.name}.[0-9][0-9]"))]


def _read(archive: Path) -> Entries:
    if not archive.exists():
        return {}
    try:
        with zipfile.ZipFile(io.BytesIO(b"".join(file.read_bytes() for file in _files(archive)))) as stored:
            if outside := [name for name in stored.namelist() if ".." in Path(name).parts or Path(name).is_absolute()]:
                raise ValueError(f"{outside[0]!r} would lie outside of a cell")
            entries = {name: stored.read(name) for name in stored.namelist()}
        for name, content in entries.items():
            if name.endswith(SUFFIX):
                record = json.loads(content)
                facts = [record["config"], *(one["sha256"] for one in (record["artifact"], *record["inputs"]))]
                if None in facts:
                    raise ValueError(f"{name} is no record")
        return entries
    # What zipfile raises of a damaged archive: a flipped flag says that it is encrypted, or packed by another method.
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise UserError(f"{archive}: damaged ({error}); `git checkout` on it brings it back") from None


def _write(archive: Path, entries: Entries) -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as stored:
        for name in sorted(entries):
            stored.writestr(zipfile.ZipInfo(name, SAME_DATE), entries[name], zipfile.ZIP_DEFLATED, 9)
    pieces = [whole.getbuffer()[start : start + LARGEST] for start in range(0, whole.tell(), LARGEST)]
    files = [archive, *(archive.with_name(f"{archive.name}.{number:02}") for number in range(1, len(pieces)))]
    for file, piece in zip(files, pieces, strict=True):
        with atomic_path(file) as temporary:
            temporary.write_bytes(piece)
    for old in set(_files(archive)) - set(files):
        old.unlink()


def restore(name: str) -> Restored:
    """Put a study's packed cells in place; data, backbones and draws are made first, and what is there stays.

    Args:
        name: of the study; its configuration is config/<name>.yaml.

    Raises:
        UserError: the configuration is wrong, an archive is damaged, or an input cannot be made.
    """
    cells = packed_cells(config_file(name))
    archives = {archive: _read(archive) for archive in {cell.archive for cell in cells}}
    found = {cell.folder: _below(cell.place, archives[cell.archive]) for cell in cells}
    packed = {folder: entries for folder, entries in found.items() if SCORES in entries}
    absent = [cell for cell in cells if cell.folder in packed and not (cell.folder / SCORES).exists()]
    if not absent:
        return Restored(len(cells), 0, {})
    snakemake(name, "--", *sorted({str(path) for cell in absent for path in cell.inputs}))
    placed, refused = [], {}
    for cell in absent:
        training = packed.get(cell.trained, {})
        if why := _difference(cell, packed[cell.folder], training):
            refused[cell.name] = why
            continue
        for folder, entries in ((cell.trained, training), (cell.folder, packed[cell.folder])):
            if folder != cell.folder and (folder / COST).exists():
                continue  # the training that seeds share is here already
            for file, content in entries.items():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(folder / file) as temporary:
                    temporary.write_bytes(content)
        placed.append(cell)
    if placed:
        # Snakemake notes what they were made with, so that a later change of it is noticed; of a cell that looks up to
        # date only when forced.
        made = {cell.folder / SCORES for cell in placed} | {cell.trained / COST for cell in placed}
        snakemake(name, "--touch", "--force", "--", *sorted(map(str, made)))
    return Restored(len(cells), len(placed), refused)


def _below(place: str, entries: Entries) -> Entries:
    return {name.removeprefix(place): content for name, content in entries.items() if name.startswith(place)}


def _difference(cell: Packed, scores: Entries, training: Entries) -> str | None:
    """Say why a packed cell is not what this checkout would compute; None if it is."""
    if COST not in training:
        return "its training is not packed"
    for name, params in cell.made_with().items():
        entries = training if name == COST else scores
        if sidecar_path(name).name not in entries:
            return f"the record of {name} is not packed"
        record = json.loads(entries[sidecar_path(name).name])
        if name == SCORES and sha256_bytes(entries[name]) != record["artifact"]["sha256"]:
            return f"{name} is not the file that its record describes"
        if differing := _differing(record["config"], json.loads(job_params.dump(params))):
            return f"made with another {differing}"
        for given in record["inputs"]:
            path = Path(given["path"])
            # Its own models are gone, or come with it.
            if not path.is_relative_to(cell.trained) and (not path.exists() or sha256_file(path) != given["sha256"]):
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
