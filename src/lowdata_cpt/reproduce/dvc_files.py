"""What dvc.lock says about a study's files, and whether the files on disk are those: hashed here, not asked of DVC.

DVC trusts its notes on modification times, and its cache trusts read-only files; a reviewer should trust neither.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.provenance import SUFFIX

LOCK = Path("dvc.lock")
STAGES = ("data", "models", "evaluate", "figures")
# As in .dvcignore: no part of a folder's content.
IGNORED = frozenset({".snakemake_timestamp"})
IGNORED_SUFFIXES = (SUFFIX, ".pdf", ".png")
# Made again anywhere from the tables, with bytes that depend on the machine: judged by those tables.
BUILT = frozenset({"report.html"})


class Out(NamedTuple):
    """One output of a stage: a file, or a folder when `md5` ends in `.dir`."""

    path: Path
    md5: str


class Difference(NamedTuple):
    """One file that is not as dvc.lock says; `problem` is missing, differs or extra."""

    path: Path
    problem: str


def stage_names(study: str) -> list[str]:
    """Return the names of a study's four stages in dvc.yaml."""
    return [f"{stage}@{study}" for stage in STAGES]


def _stages() -> dict[str, Any]:
    try:
        stages = yaml.safe_load(LOCK.read_text(encoding="utf-8"))["stages"]
    except FileNotFoundError:
        raise UserError(f"{LOCK}: no such file; after a complete run, `make dvc-commit` writes it") from None
    except (yaml.YAMLError, KeyError, TypeError):
        raise UserError(f"{LOCK}: not a lock file of DVC") from None
    if not isinstance(stages, dict):
        raise UserError(f"{LOCK}: not a lock file of DVC")
    return stages


def is_locked(study: str) -> bool:
    """Whether dvc.lock is there and knows a stage of the study.

    Raises:
        UserError: it is not a lock file.
    """
    return LOCK.exists() and not set(stage_names(study)).isdisjoint(_stages())


def locked_outs(study: str) -> list[Out]:
    """Return the outputs of a study's stages.

    Raises:
        UserError: there is no lock file, or it does not know the study.
    """
    stages = _stages()
    names = stage_names(study)
    absent = [name for name in names if name not in stages]
    if absent:
        raise UserError(f"{LOCK}: has no stage {', '.join(absent)}; known: {', '.join(stages)} (see dvc.yaml)")
    return [Out(Path(out["path"]), out["md5"]) for name in names for out in stages[name]["outs"]]


def file_md5(path: Path) -> str:
    """Return a file's md5, which is DVC's name for it (not a safeguard against forgery: sidecars hold sha256)."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def files_in(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder that count, sorted."""
    for path in sorted(folder.rglob("*")):
        if path.name in IGNORED or path.name.endswith(IGNORED_SUFFIXES):
            continue
        if path.is_file() or path.is_symlink():
            yield path


def listing(folder: Path) -> dict[str, str]:
    """Return path below `folder` -> md5; a dangling link has the md5 ``""``."""
    return {p.relative_to(folder).as_posix(): file_md5(p) if p.exists() else "" for p in files_in(folder)}


def listing_md5(files: dict[str, str]) -> str:
    """Return DVC's name of a folder: the md5 of its sorted listing as JSON, with `.dir` after it."""
    entries = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def object_path(cache: Path, md5: str) -> Path:
    """Return where a cache (or a folder remote) keeps an object."""
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def read_listing(cache: Path, md5: str) -> dict[str, str] | None:
    """Return the listing of folder `md5` from the cache, None where it is missing or damaged."""
    path = object_path(cache, md5)
    if not path.is_file() or file_md5(path) != md5.removesuffix(".dir"):
        return None
    return {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_bytes())}


def differences(out: Out, cache: Path | None) -> list[Difference]:
    """Return what of `out` is not as the lock says; the files of a folder are named if the cache knows its listing."""
    if not out.path.exists():
        return [Difference(out.path, "missing")]
    if not out.md5.endswith(".dir"):
        return [] if file_md5(out.path) == out.md5 else [Difference(out.path, "differs")]
    found = listing(out.path)
    if listing_md5(found) == out.md5:
        return []
    expected = read_listing(cache, out.md5) if cache else None
    if expected is None:
        return [Difference(out.path, "differs")]
    named = []
    for name in sorted(expected.keys() | found.keys()):
        if not found.get(name):
            named.append(Difference(out.path / name, "missing"))
        elif name not in expected:
            named.append(Difference(out.path / name, "extra"))
        elif found[name] != expected[name]:
            named.append(Difference(out.path / name, "differs"))
    return named


def objects(outs: Iterable[Out], cache: Path) -> dict[str, Path]:
    """Return md5 -> the path it is (one of them) of all objects that `outs` consist of, as far as the cache knows."""
    found: dict[str, Path] = {}
    for out in outs:
        found[out.md5] = out.path
        if out.md5.endswith(".dir"):
            found |= {md5: out.path / name for name, md5 in (read_listing(cache, out.md5) or {}).items()}
    return found


def damaged_objects(outs: Iterable[Out], cache: Path) -> dict[Path, Path]:
    """Return file in the cache -> the path it is, of the objects whose content is not what their name says."""
    bad = {}
    for md5, path in objects(outs, cache).items():
        stored = object_path(cache, md5)
        if stored.is_file() and file_md5(stored) != md5.removesuffix(".dir"):
            bad[stored] = path
    return bad
