"""Exact copies among the user's own images: which are left out, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lowdata_cpt.core.io import sha256_bytes
from lowdata_cpt.data.raw import UNREADABLE

EMPTY = sha256_bytes(b"")


def exact_copies(
    splits: Mapping[str, Sequence[tuple[Path, str]]], digests: Mapping[Path, str], name_of: Callable[[Path], str]
) -> dict[Path, str]:
    """Return the images to leave out as exact copies of others of their split, with the reason.

    Args:
        splits: images of each split with their classes, "" for none.
        digests: sha256 of each file (`raw.file_hashes`).
        name_of: how a file is called.
    """
    copies: dict[Path, str] = {}
    for images in splits.values():
        groups: dict[str, list[tuple[Path, str]]] = {}
        for path, name in images:
            groups.setdefault(digests[path], []).append((path, name))
        for digest, group in groups.items():
            if digest == EMPTY or digest.startswith(UNREADABLE) or len(group) == 1:
                continue  # decoding says what is wrong with the former
            (first, label), *rest = group
            other = next((path for path, name in rest if name != label), None)
            if other is None:
                copies |= {path: f"left out: the same bytes as {name_of(first)}" for path, _ in rest}
                continue
            for path, name in group:
                twin = next(found for found, another in group if another != name)
                copies[path] = f"left out: the same bytes as {name_of(twin)}, which has another class"
    return copies
