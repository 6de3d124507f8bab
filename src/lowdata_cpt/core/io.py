"""Atomic writes, hashes and reads that fail in one clear sentence. Nothing here needs torch."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lowdata_cpt.core.errors import UserError

REFUSED = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "writing is not permitted",
}
"""What a disk says that no retry mends."""


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Name the file that a full or read-only disk does not take, and how much room there is; what was there stays.

    Raises:
        UserError: it does not take it.
    """
    try:
        yield
    except Exception as error:
        # safetensors raises an error of its own, with the number in its text.
        said = re.search(r"\(os error (\d+)\)", str(error))
        number = error.errno if isinstance(error, OSError) else int(said[1]) if said else None
        if number not in REFUSED:
            raise
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(next(one for one in target.parents if one.exists())).free
            needed = f", the file takes about {target.stat().st_size / 1e6:.3g}" if target.exists() else ""
            room = f" ({free / 1e6:.3g} MB are free{needed})"
            raise UserError(
                f"{target}: cannot be written, {REFUSED[number]}{room}; what was there is unchanged: make room or give "
                "the permission, and give the same command again"
            ) from None
        raise


@contextlib.contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `target` that replaces it, durably, when the block succeeds.

    The sibling keeps the target's suffix, since several libraries choose a format by it.
    """
    target = Path(target)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent)
    temporary = Path(name)
    try:
        _lock(handle)
        with writing(target):
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def _lock(handle: int) -> bool:
    """Say whether no living process holds a file, and hold it; file systems that lock nothing say no."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sweep(target: Path) -> None:
    """Remove the temporary siblings that killed processes left of a file."""
    left = re.compile(rf"\.{re.escape(target.stem)}\.[a-z0-9_]{{8}}{re.escape(target.suffix)}")
    for path in target.parent.iterdir():
        if left.fullmatch(path.name):
            with contextlib.suppress(OSError):  # gone meanwhile
                handle = os.open(path, os.O_RDWR)
                try:
                    if _lock(handle):
                        path.unlink(missing_ok=True)
                finally:
                    os.close(handle)


def write_text(target: str | Path, text: str) -> None:
    """Write `text` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: str | Path, value: Any) -> None:
    """Write `value` atomically as JSON with sorted keys, so that equal values give equal bytes."""
    write_text(target, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None


def write_array(target: str | Path, array: np.ndarray) -> None:
    """Write one array atomically as .npy (no pickle)."""
    with atomic_path(target) as temporary, temporary.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


def write_arrays(target: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays atomically to one .npz (no pickle)."""
    # NumPy's own writer asks for zip64 headers, whose bytes differ between releases of one Python.
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asanyarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), zipfile.ZIP_DEFLATED)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a .npz (no pickle); each is held to its checksum before numpy sees it.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as stored:
            content = {name.removesuffix(".npy"): stored.read(name) for name in stored.namelist()}
        return {name: np.lib.format.read_array(io.BytesIO(data), allow_pickle=False) for name, data in content.items()}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    # What zipfile raises of a damaged archive: a flipped flag says that it is encrypted, or packed by another method.
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not a readable .npz of arrays ({error})") from None


def sha256_bytes(data: bytes) -> str:
    """Return the sha256 of `data` as hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """Return the sha256 of a file's bytes as hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


_held: dict[tuple[str, int, int, int], str] = {}
"""Path, inode, size and modification time of the files that `is_intact` has read -> their sha256."""


def is_intact(path: Path, sha256: str | None) -> bool:
    """Say whether a file's bytes have this hash; a file is read once a process, until it changes.

    Raises:
        OSError: it cannot be read.
    """
    stat = path.stat()
    key = (str(path.resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key not in _held:
        _held[key] = sha256_file(path)
    return _held[key] == sha256


def identity(value: Any) -> str:
    """Return the sha256 of a JSON-able value, independent of key order: the identity of a run."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
