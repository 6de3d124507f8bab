"""Atomic writes, hashes and reads that fail in one clear sentence. Nothing here needs torch."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lowdata_cpt.core.errors import UserError

CHUNK = 1 << 20


@contextlib.contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `target` that replaces it, durably, when the block succeeds.

    The sibling keeps the target's suffix, since several libraries choose a format by it.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


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
    with atomic_path(target) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


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
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


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
