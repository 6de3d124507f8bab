"""Stages that make a cell's inputs: the decoded domain and the subsets. No torch."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json, write_json, write_text
from lowdata_cpt.core.provenance import write_sidecar
from lowdata_cpt.data.domain import Domain, prepare
from lowdata_cpt.data.store import Store
from lowdata_cpt.data.subsets import draw, write_manifest
from lowdata_cpt.study.config import DomainEntry

STORE_CACHE = Path("data/cache")
"""Decoded once for all studies; may be deleted: each study holds links to the files of its own."""


def open_store(manifest: Path) -> Store:
    """Open the store beside a data manifest, and check that it is the content the manifest names.

    Raises:
        UserError: the store is missing or holds other content.
    """
    facts = read_json(manifest)
    folder = manifest.parent / "store"
    if not (folder / "meta.json").exists():
        raise UserError(f"{folder}: the decoded images of {manifest} are missing; run `snakemake --forcerun data`")
    store = Store(folder)
    if store.meta.content_sha256 != facts["content_sha256"]:
        raise UserError(f"{folder}: holds other content than {manifest} says; run `snakemake --forcerun data`")
    return store


def _link(source: str, target: str) -> None:
    """Link a file; copy it where the file systems differ."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def data(config: dict[str, Any], manifest: Path) -> None:
    """Decode a domain once and write its manifest, its data card, the list of quarantined images and `store`."""
    begun = time.monotonic()
    domain: Domain = TypeAdapter(DomainEntry).validate_python(config)
    store = prepare(domain, STORE_CACHE)
    shutil.rmtree(manifest.parent / "store", ignore_errors=True)
    shutil.copytree(store.root, manifest.parent / "store", copy_function=_link)
    quarantine = store.root / "quarantine.csv"
    quarantined = len(pd.read_csv(quarantine)) if quarantine.exists() else 0
    write_text(manifest.parent / "card.md", domain.card())
    write_text(
        manifest.parent / "quarantine.csv",
        quarantine.read_text(encoding="utf-8") if quarantine.exists() else "id,reason\n",
    )
    facts = {
        "domain": store.meta.domain,
        "store": store.root.as_posix(),
        "content_sha256": store.meta.content_sha256,
        "resolution": store.meta.resolution,
        "images": {name: len(store.rows(name)) for name in sorted(store.meta.sets)},
        "tasks": {task: info.model_dump(mode="json") for task, info in store.meta.tasks.items()},
        "quarantined": quarantined,
    }
    write_json(manifest, facts)
    write_sidecar(manifest, config=config, seconds=time.monotonic() - begun)


def subset(manifest: Path, n: int, seed: int, target: Path) -> None:
    """Draw n images of the pool and write their manifest."""
    store = open_store(manifest)
    write_manifest(target, draw(store, n, seed))
    write_sidecar(target, inputs=[manifest], config={"n": n, "seed": seed})
