"""What the files of a data set hold, known without reading them again: a hash of each, cached by size and times."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import identity, read_json, sha256_file, write_json

CACHE = Path(".cache/raw")
"""Below the working directory, which is the project's; may be deleted."""

ABSENT = "absent"
"""The fingerprint of data that are not on this machine."""

UNREADABLE = "unreadable: "

SETTLED = 2.0
"""Seconds: a file written later than that before it is read could change once more within one tick of its times."""


def printable(path: str | Path) -> str:
    r"""Return a path as one line of text: bytes that are no UTF-8, and control characters, become \xNN."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)


def content_hash(folder: Path, paths: Iterable[Path]) -> str:
    """Return the sha256 over names (below `folder`) and contents of files; what has not changed is not read again."""
    return identity(
        [[printable(path.relative_to(folder)), found] for path, found in file_hashes(folder, paths).items()]
    )


def file_hashes(folder: Path, paths: Iterable[Path]) -> dict[Path, str]:
    """Return the sha256 of each file, in the order of their names.

    A file counts as unchanged while its size, inode, modification and change times are: the last of these nobody can
    set, so that a copy with preserved times is noticed too. An unreadable file has `UNREADABLE` and the reason
    instead; decoding lists it.
    """
    unique = sorted(set(paths))
    names = [printable(path.relative_to(folder)) for path in unique]
    cache = CACHE / f"{identity(printable(folder.resolve()))[:16]}.json"
    known, now = _known(cache), time.time_ns()

    def look(name: str, path: Path) -> tuple[list[int], str]:
        try:
            stat = path.stat()
            facts = [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
            old = known.get(name)
            return facts, str(old[1]) if old and old[0] == facts else sha256_file(path)
        except OSError as error:
            return [], f"{UNREADABLE}{error.strerror}"

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(look, names, unique))
    settled = {
        name: [facts, digest]
        for name, (facts, digest) in zip(names, seen, strict=True)
        if facts and now - facts[3] > SETTLED * 1e9
    }
    if any(known.get(name) != entry for name, entry in settled.items()):
        with contextlib.suppress(OSError):  # a checkout that cannot be written to is only slower
            write_json(cache, known | settled)
    return {path: digest for path, (_, digest) in zip(unique, seen, strict=True)}


def _known(cache: Path) -> dict[str, list[object]]:
    """Return name -> [size and times, sha256] of the files that were read before."""
    try:
        found = read_json(cache)
    except (UserError, OSError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: entry for name, entry in found.items() if isinstance(entry, list) and len(entry) == 2}
