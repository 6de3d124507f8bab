"""Stores with something changed on purpose."""

from __future__ import annotations

from pathlib import Path

from lowdata_cpt.data.store import Store
from lowdata_cpt.data.writer import write_meta


def with_index(root: Path, old: str, new: str) -> Store:
    """Replace text in a store's index, as if it had been written so."""
    index, meta = root / "index.csv", Store(root).meta
    text = index.read_text()
    assert old in text
    index.write_text(text.replace(old, new))
    write_meta(root, meta.domain, meta.resolution, meta.pool, meta.sets, meta.tasks)
    return Store(root)
