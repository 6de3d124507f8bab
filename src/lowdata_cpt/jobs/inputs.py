"""Stages that make a cell's inputs: the decoded domain and the subsets. No torch."""

from __future__ import annotations

import csv
import os
import shutil
import time
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lowdata_cpt.core.io import write_json, write_text, writing
from lowdata_cpt.core.provenance import write_sidecar
from lowdata_cpt.data.domain import Domain, prepare
from lowdata_cpt.data.layouts.image_folder import FOUND
from lowdata_cpt.data.store import Store
from lowdata_cpt.data.subsets import draw, write_manifest
from lowdata_cpt.study.config import DomainEntry

STORE_CACHE = Path("data/cache")
"""Decoded once for all studies; may be deleted: each study holds links to the files of its own."""


def _link(source: str, target: str) -> None:
    """Link a file; copy it where the file systems differ."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def data(params: dict[str, Any], manifest: Path) -> None:
    """Decode a domain once and write its manifest, its data card, the list of quarantined images and `store`."""
    started = time.monotonic()
    domain: Domain = TypeAdapter(DomainEntry).validate_python(params["domain"])
    with writing(STORE_CACHE / "store"):
        store = prepare(domain, STORE_CACHE)
    shutil.rmtree(manifest.parent / "store", ignore_errors=True)
    shutil.copytree(store.root, manifest.parent / "store", copy_function=_link)
    found = store.root / FOUND
    card = domain.card() + (f"\n## Found\n\n{found.read_text(encoding='utf-8')}" if found.exists() else "")
    write_text(manifest.parent / "card.md", card)
    quarantine = store.root / "quarantine.csv"
    listed = quarantine.read_text(encoding="utf-8") if quarantine.exists() else "id,reason\n"
    write_text(manifest.parent / "quarantine.csv", listed)
    # Nothing of the key or the code: a decode that gives the same content writes the same bytes, and nothing re-runs.
    facts = {
        "domain": store.meta.domain,
        "content_sha256": store.meta.content_sha256,
        "resolution": store.meta.resolution,
        "images": {name: len(store.rows(name)) for name in sorted(store.meta.sets)},
        "tasks": {task: info.model_dump(mode="json") for task, info in store.meta.tasks.items()},
        "quarantined": len(list(csv.reader(listed.splitlines()))) - 1,
    }
    write_json(manifest, facts)
    write_sidecar(manifest, config=params, seconds=time.monotonic() - started)


def subset(params: dict[str, Any], manifest: Path, target: Path) -> None:
    """Draw n images of the pool and write their list."""
    write_manifest(target, draw(Store.open(manifest), params["n"], params["seed"]))
    write_sidecar(target, inputs=[manifest], config=params)
