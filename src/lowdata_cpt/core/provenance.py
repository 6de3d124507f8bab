"""How each artifact came about: a sidecar beside it while a study runs, one file for the whole of a published study.

A job writes `<artifact>.prov.json` beside what it makes (not in git). `write_provenance` gathers a study's sidecars
into `results/<study>/provenance.json` (in git), so that a fresh clone knows where every number comes from.
`read_records` gives both, in the sidecars' form, to whoever asks.

**What the gathered file keeps.** Of each artifact: path, sha256, bytes, the inputs with their sha256, configuration,
command, code (commit, lock) and environment, and the facts its job added. Code states, environments and configurations
stand once, in tables, and are referred to by their index; so is an input's hash, which its own record has.

**What it leaves out.** Start and end times, seconds and job ids: measurements, which `benchmarks.csv` has. And an
artifact that was made again with the same bytes from the same inputs and configuration keeps the record that it was
published with, commit and processor included. So a second run with equal results gives an equal file; it differs
exactly where artifacts do.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from lowdata_cpt import __version__
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import is_intact, read_json, sha256_file, write_json, write_text
from lowdata_cpt.core.paths import REPOSITORY

PACKAGES = ("torch", "timm", "numpy", "pandas", "scikit-learn", "safetensors", "mujoco", "snakemake", "dvc")
SUFFIX = ".prov.json"
BESIDE = "beside"
"""The key of a sidecar with the hashes of files that lie beside the artifact."""
GATHERED = "provenance.json"
MEASURED = frozenset({"seconds", "train_seconds", "ended", "slurm_job_id"})
"""Facts of a sidecar that differ between two equal runs."""
MEASURED_FILES = frozenset({"cost.json"})
"""Artifacts that hold such facts: other bytes do not make them other results."""
LONG = 200
"""Characters from which a JSON argument of a command is cut out: it repeats the configuration."""
TABLES = ("code", "environment", "config")


def sidecar_path(artifact: str | Path) -> Path:
    """Return where the sidecar of `artifact` lies: `model.safetensors` -> `model.safetensors.prov.json`."""
    artifact = Path(artifact)
    return artifact.with_name(artifact.name + SUFFIX)


def artifact_of(sidecar: Path) -> Path:
    """Return the file that a sidecar describes."""
    return sidecar.with_name(sidecar.name.removesuffix(SUFFIX))


@functools.cache
def code_state() -> dict[str, Any]:
    """Return the commit and whether tracked files other than results differ from it; nulls outside a checkout."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=30
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit, changes = (
        git("rev-parse", "HEAD"),
        git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results", ":!dvc.lock"),
    )
    lock = REPOSITORY / "uv.lock"
    return {
        "version": __version__,
        "commit": commit,
        "dirty": None if changes is None else bool(changes),
        "lock_sha256": sha256_file(lock) if lock.exists() else None,
    }


@functools.cache
def environment() -> dict[str, Any]:
    """Return interpreter, platform and package versions."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": processor(),
        "packages": versions,
    }


def processor() -> str:
    """Return the CPU's model: together with device and thread count it decides the last bit of a result."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write_sidecar(
    artifact: str | Path,
    *,
    inputs: Sequence[str | Path] = (),
    config: Any = None,
    seconds: float | None = None,
    beside: Iterable[Path] = (),
    **facts: Any,
) -> None:
    """Write the sidecar of `artifact`: its hash, its inputs' hashes, config, command, code, environment, job.

    `beside` are files below its folder that were made with it and have no sidecar of their own: their hashes too.
    """
    artifact = Path(artifact)
    hashes = {path.relative_to(artifact.parent).as_posix(): sha256_file(path) for path in beside}
    facts |= {BESIDE: hashes} if hashes else {}
    write_json(
        sidecar_path(artifact),
        {
            "artifact": {"path": artifact.name, "sha256": sha256_file(artifact), "bytes": artifact.stat().st_size},
            "inputs": [{"path": str(path), "sha256": sha256_file(path)} for path in inputs],
            "config": config,
            "command": ["lowdata-cpt", *sys.argv[1:]],
            "code": code_state(),
            "environment": environment(),
            "job": {"slurm_job_id": os.environ.get("SLURM_JOB_ID"), "seconds": seconds, "ended": int(time.time())},
            **facts,
        },
    )


def check(path: Path, maker: Path | None = None, *, again: Path | None = None) -> Path:
    """Hold a file to the hash that it was written with, and return it; one that has no record is taken as it is.

    The record is a sidecar, or that of the published study, with which the file may have come by git or DVC. Each file
    is read once a process.

    Args:
        path: the file.
        maker: the artifact whose record says the file's hash (`beside`), if it has none of its own.
        again: what the message names to be made again, if not the artifact.

    Raises:
        UserError: the file or its record is damaged.
    """
    maker = maker or path
    name, sidecar = path.relative_to(maker.parent).as_posix(), sidecar_path(maker)

    def holds(record: Any) -> bool | None:
        """Whether a record describes the file; None where it says nothing of it, or is of another run's artifact."""
        if maker == path:
            return is_intact(path, record["artifact"]["sha256"])
        if (sha256 := record.get(BESIDE, {}).get(name)) is None or not is_intact(maker, record["artifact"]["sha256"]):
            return None
        return is_intact(path, sha256)

    try:
        found = [holds(read_json(sidecar))] if sidecar.exists() else []
        if True not in found and (record := _published_record(maker)):
            found.append(holds(record))
    except (AttributeError, KeyError, TypeError):
        raise UserError(f"{sidecar}: damaged, expected artifact.sha256; {_again(again or maker)}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {_again(again or maker)}") from None
    if False in found and True not in found:
        raise UserError(f"{path}: damaged, its sha256 is not the one that was written; {_again(again or maker)}")
    return path


def of_study(path: Path) -> Path:
    """Hold a file of a study's folder to its table's record (study.json, not_run.json, outcomes/…), as `check` does."""
    folder = path.parent.parent if path.parent.name == "outcomes" else path.parent
    return check(path, folder / "scores.csv")


def _published_record(artifact: Path) -> dict[str, Any] | None:
    """Return the record of an artifact in the gathered file of the study that it lies in."""
    folder = next((one for one in artifact.parents if (one / GATHERED).exists()), None)
    if folder is None:
        return None
    stat = (folder / GATHERED).stat()
    return _records_of(folder, stat.st_mtime_ns, stat.st_size).get(artifact.relative_to(folder).as_posix())


@functools.lru_cache(4)
def _records_of(folder: Path, changed: int, size: int) -> dict[str, dict[str, Any]]:
    return published_records(folder)


def _again(path: Path) -> str:
    return f"`snakemake --cores 1 --force {path}` (with the study's --configfile) makes it again"


def _without_measurements(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_measurements(one) for key, one in value.items() if key not in MEASURED}
    return value


def _own_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return artifact path (below `folder`) -> content of the sidecar beside it."""
    found = {}
    for sidecar in sorted(folder.rglob(f"*{SUFFIX}")):
        content = read_json(sidecar)
        try:
            content["artifact"]["sha256"], [(one["path"], one["sha256"]) for one in content["inputs"]]
        except (KeyError, TypeError):
            raise UserError(
                f"{sidecar}: not a sidecar, expected artifact.sha256 and inputs with path and sha256"
            ) from None
        found[artifact_of(sidecar).relative_to(folder).as_posix()] = content
    return found


def published_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return artifact path -> record of the gathered file, in the form of a sidecar; {} where there is no such file."""
    if not (folder / GATHERED).exists():
        return {}
    content = read_json(folder / GATHERED)
    try:
        artifacts, tables = content["artifacts"], {name: content[name] for name in TABLES}
        # Inputs are named as the workflow names them, wherever the folder lies today.
        places = (folder, Path("results", content["study"]))
        hashes = {(place / name).as_posix(): one["sha256"] for name, one in artifacts.items() for place in places}
        found = {}
        for name, record in artifacts.items():
            facts = dict(record)
            given = [(one, hashes[one]) if isinstance(one, str) else one for one in facts.pop("inputs")]
            path = Path(name).name
            found[name] = {
                "artifact": {"path": path, "sha256": facts.pop("sha256"), "bytes": facts.pop("bytes")},
                "inputs": [{"path": path, "sha256": sha256} for path, sha256 in given],
                **facts,
                **{table: _entry(tables[table], facts[table]) for table in TABLES},
            }
    except (KeyError, TypeError, IndexError, ValueError, AttributeError):
        raise UserError(f"{folder / GATHERED}: not a study's provenance; `make publish` writes it") from None
    return found


def _entry(table: list[Any], index: int | None) -> Any:
    return None if index is None else table[index]


def read_records(folder: str | Path) -> dict[str, dict[str, Any]]:
    """Return artifact path (below `folder`) -> how it came about, in the form of a sidecar, sorted by path.

    A sidecar beside the artifact goes before the published record: it is what made the file that lies here. Published
    records have no `job`.

    Raises:
        UserError: a sidecar or the gathered file is none.
    """
    folder = Path(folder)
    found = published_records(folder) | _own_records(folder)
    return {name: found[name] for name in sorted(found)}


def last_ended(folder: str | Path) -> int | None:
    """Return when the last artifact was made, in seconds since 1970; None where nothing says so."""
    folder = Path(folder)
    ended = [int(record["job"]["ended"]) for record in _own_records(folder).values()]
    if (folder / GATHERED).exists():
        ended.append(int(read_json(folder / GATHERED).get("ended") or 0))
    return max(ended, default=0) or None


def _is_the_same(published: dict[str, Any], own: dict[str, Any]) -> bool:
    """Whether an artifact was made again as it was: same bytes, inputs, configuration and files beside it."""

    def key(record: dict[str, Any]) -> Any:
        artifact = record["artifact"]
        inputs = [(one["path"], one["sha256"]) for one in record["inputs"]]
        return (
            None if artifact["path"] in MEASURED_FILES else (artifact["sha256"], record.get(BESIDE)),
            [(path, None if Path(path).name in MEASURED_FILES else sha256) for path, sha256 in inputs],
            record["config"],
        )

    return bool(key(published) == key(own))


def _place(name: str) -> str:
    """Return the folder of a cell that an artifact lies in, or the artifact's own path."""
    parts = Path(name).parts
    return "/".join(parts[:6]) if parts[0] == "cells" else name


def _still_wanted(folder: Path, records: dict[str, Any], published: dict[str, Any]) -> dict[str, Any]:
    """Return the published records that still hold although their sidecar is not here, as in a fresh clone.

    Those are artifacts that lie here unchanged, what records name as inputs, and what lies in the same cell as those.
    """
    kept: dict[str, Any] = {}
    candidates = {name: one for name, one in published.items() if name not in records}
    for name, record in candidates.items():
        path = folder / name
        if path.exists() and sha256_file(path) == record["artifact"]["sha256"]:
            kept[name] = record
    new = records | kept
    while new:
        named = {Path(one["path"]) for record in new.values() for one in record["inputs"]}
        places = {_place(path.relative_to(folder).as_posix()) for path in named if path.is_relative_to(folder)}
        new = {name: one for name, one in candidates.items() if name not in kept and _place(name) in places}
        new = {name: one for name, one in new.items() if not (folder / name).exists()}
        kept |= new
    return kept


def _short(command: list[str]) -> list[str]:
    return ["{…}" if part.startswith("{") and len(part) > LONG else part for part in command]


def gather(folder: str | Path) -> dict[str, Any]:
    """Return a study's provenance as it is published: `artifacts`, and the tables `code`, `environment`, `config`.

    Of what was made again as it was published the published record stays; see the module's head for what is left out.

    Args:
        folder: results/<study>, as the sidecars of its artifacts name it.

    Raises:
        UserError: there is neither a sidecar nor a gathered file, or one of them is damaged.
    """
    folder = Path(folder)
    published, own = published_records(folder), _own_records(folder)
    records = {
        name: published[name] if name in published and _is_the_same(published[name], record) else record
        for name, record in own.items()
    }
    records |= _still_wanted(folder, records, published)
    if not records:
        raise UserError(f"{folder}: no artifact has a sidecar; run the study before it is published")
    tables: dict[str, list[Any]] = {name: [] for name in TABLES}
    hashes = {(folder / name).as_posix(): record["artifact"]["sha256"] for name, record in records.items()}

    def index(table: str, value: Any) -> int | None:
        if value is None:
            return None
        if value not in tables[table]:
            tables[table].append(value)
        return tables[table].index(value)

    artifacts = {}
    for name in sorted(records):
        facts = _without_measurements(records[name])
        artifact, job = facts.pop("artifact"), facts.pop("job", None)
        given = [(one["path"], one["sha256"]) for one in facts.pop("inputs")]
        artifacts[name] = facts | {
            "sha256": artifact["sha256"],
            "bytes": artifact["bytes"],
            "inputs": [path if hashes.get(path) == sha256 else [path, sha256] for path, sha256 in given],
            "command": _short(facts["command"]),
            **({"job": job} if job else {}),
            **{table: index(table, records[name][table]) for table in TABLES},
        }
    return {"study": folder.name, "artifacts": artifacts} | tables


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def write_provenance(folder: str | Path) -> Path:
    """Write results/<study>/provenance.json, one record a line, and return its path; an equal one stays as it is.

    Beside what `gather` returns it has `ended`: when the last artifact of these was made.

    Raises:
        UserError: as `gather`.
    """
    folder = Path(folder)
    content = gather(folder)
    target = folder / GATHERED
    if target.exists() and {key: one for key, one in read_json(target).items() if key != "ended"} == content:
        return target
    parts = [f'"study":{_dump(content["study"])}', f'"ended":{last_ended(folder) or "null"}']
    for table in TABLES:
        lines = ",\n".join(_dump(one) for one in content[table])
        parts.append(f'"{table}":[\n{lines}\n]')
    lines = ",\n".join(f"{_dump(name)}:{_dump(record)}" for name, record in content["artifacts"].items())
    parts.append(f'"artifacts":{{\n{lines}\n}}')
    write_text(target, "{\n" + ",\n".join(parts) + "\n}\n")
    return target
