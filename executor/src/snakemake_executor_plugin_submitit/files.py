"""Small files that survive crashes: atomic JSON, and a claim that exactly one of several processes can make."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def _write_temporary(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    return Path(name)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` to `path` as JSON, atomically."""
    write_text(path, json.dumps(value, sort_keys=True))


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: a reader sees the old or the new content, never part of it."""
    temporary = _write_temporary(path, text)
    try:
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in `path`, or None if it is missing or not (yet) readable."""
    # Listing the directory makes an NFS client ask the server again instead of answering from its cache.
    with contextlib.suppress(OSError), os.scandir(path.parent):
        pass
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def claim(path: Path, value: Mapping[str, Any]) -> dict[str, Any]:
    """Create `path` with `value` unless it exists; return the content that stands: `value` or an earlier claim.

    Creating a hard link either publishes the complete file or fails because the name exists, on NFS too.
    """
    temporary = _write_temporary(path, json.dumps(value, sort_keys=True))
    try:
        os.link(temporary, path)
        return dict(value)
    except FileExistsError:
        return read_json(path) or {}
    finally:
        temporary.unlink(missing_ok=True)
