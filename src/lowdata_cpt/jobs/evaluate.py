"""The job that evaluates a cell: each exported milestone, in one process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.backbones import weights
from lowdata_cpt.core.device import pick_device
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import identity, read_arrays, read_json, sha256_file, write_arrays, write_json
from lowdata_cpt.core.provenance import write_sidecar
from lowdata_cpt.data.store import Store
from lowdata_cpt.data.subsets import read_manifest
from lowdata_cpt.probes.evaluate import evaluate as evaluate_model
from lowdata_cpt.probes.features import SharedBlocks
from lowdata_cpt.study.grid import Cell
from lowdata_cpt.study.paths import Paths

ARRAYS = ("outcomes", "examples")
PARTS, DONE = ("outcomes.npz", "examples.npz", "summary.json"), "done.json"
"""Files of a milestone that is scored, of a cell that is not; the last one written has the hashes of the others."""


def evaluate(params: dict[str, Any], cell: Cell, paths: Paths, *, device: str = "auto") -> None:
    """Evaluate every milestone of a cell; a killed evaluation resumes at the milestone that it was at.

    Args:
        params: see `study.job_params.evaluate_params`.
        cell: which cell; seeds of what does not depend on a seed share one model.
        paths: of the study; reads the cell's `export/i<images seen>`, its domain and its subset, writes
            `evaluation.json`, `outcomes.npz` (keys `i<images seen>/<probe>/<name>`) and `examples.npz`, of the end.
        device: auto, cpu or cuda.

    Raises:
        UserError: a model is missing or does not fit, labels cannot be used, or features are not finite.
    """
    where, target, exports = pick_device(device), paths.cell(cell), paths.cell(cell.trained) / "export"
    models = sorted(exports.glob("i*"), key=lambda folder: int(folder.name[1:]))
    if not models:
        raise UserError(f"{exports}: no exported model; `snakemake --cores 1 {exports.parent / 'cost.json'}` makes it")
    store = Store.open(paths.manifest(cell.domain))
    subset = paths.subset(cell.domain, cell.n, cell.seed)
    drawn = frozenset(read_manifest(subset, store, cell.n)["sha256"]) if cell.n else frozenset()
    shared = SharedBlocks(weights.shared_blocks(models))
    milestones: dict[str, Any] = {}
    arrays: dict[str, dict[str, NDArray[Any]]] = {kind: {} for kind in ARRAYS}
    for folder in models:
        of = {"params": params, "data": store.meta.content_sha256, "drawn": sorted(drawn), "model": _content(folder)}
        key = identity(of)
        part = paths.checkpoints(cell).with_name(f"{cell.seed}-evaluation") / folder.name / key[:12]
        if not _is_done(part):
            vit = weights.open_export(folder, int(params["image_size"])).to(where)
            found = evaluate_model(
                vit,
                store,
                params["probes"],
                seed=cell.seed,
                device=where,
                precision=params["precision"],
                drawn=drawn,
                shared=shared,
            )
            for kind in ARRAYS:
                named = {f"{name}/{k}": v for name, result in found.items() for k, v in getattr(result, kind).items()}
                write_arrays(part / f"{kind}.npz", named)
            write_json(part / "summary.json", {name: result.summary() for name, result in found.items()})
            hashes = {name: sha256_file(part / name) for name in PARTS}
            write_json(part / DONE, {"sha256": hashes})
        milestones[folder.name[1:]] = read_json(part / "summary.json")
        # Examples are looked at, and only those of a run's end are shown.
        for kind in ARRAYS if folder == models[-1] else ("outcomes",):
            stored = read_arrays(part / f"{kind}.npz")
            arrays[kind] |= {f"{folder.name}/{name}": _stored(array) for name, array in stored.items()}
    for kind in ARRAYS:
        write_arrays(target / f"{kind}.npz", arrays[kind])
    write_json(target / "evaluation.json", {"milestones": milestones})
    inputs = [paths.manifest(cell.domain), *(folder / weights.MODEL for folder in models)]
    write_sidecar(target / "evaluation.json", inputs=inputs, config=params, beside=[target / "examples.npz"])
    write_sidecar(target / "outcomes.npz", inputs=inputs, config=params)
    shutil.rmtree(part.parents[1], ignore_errors=True)


def _is_done(part: Path) -> bool:
    """Say whether a milestone is scored, and its files are what was written: otherwise it is scored again."""
    try:
        hashes = read_json(part / DONE)["sha256"]
        return all(sha256_file(part / name) == hashes[name] for name in PARTS)
    except (UserError, OSError, KeyError, TypeError):
        return False


def _content(folder: Path) -> dict[str, str]:
    """Return the hash of each file of a model folder."""
    return {p.name: sha256_file(p) for p in sorted(folder.iterdir()) if not p.name.endswith(".prov.json")}


def _stored(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in the precision that is kept: errors per image need no more than float32."""
    return array.astype(np.float32) if array.dtype == np.float64 else array
