"""Synthetic stores and their features for the probe tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lowdata_cpt.core.io import read_json, sha256_file, write_json
from lowdata_cpt.data.store import Store
from lowdata_cpt.probes.result import FeatureSet

CONTENT = "a" * 64


def write_store(
    root: Path,
    arrays: dict[str, dict[str, np.ndarray]],
    tasks: dict[str, dict[str, Any]],
    *,
    resolution: int = 16,
    rows: dict[str, tuple[str, list[int]]] | None = None,
) -> Store:
    """Write a store whose sets are its arrays, plus `rows`: set name -> (array, rows)."""
    root.mkdir(parents=True, exist_ok=True)
    index = []
    for name, kinds in arrays.items():
        for kind, array in kinds.items():
            np.save(root / f"{name}.{kind}.npy", array)
        count = len(next(iter(kinds.values())))
        index += [
            {"array": name, "row": i, "id": f"{name}/{i}", "sha256": f"{name}{i}", "stratum": ""} for i in range(count)
        ]
    pd.DataFrame(index).to_csv(root / "index.csv", index=False)
    sets: dict[str, Any] = {name: {"array": name, "rows": None} for name in arrays}
    sets |= {name: {"array": array, "rows": picked} for name, (array, picked) in (rows or {}).items()}
    files = {path.name: sha256_file(path) for path in root.glob("*.*") if path.suffix in (".npy", ".csv")}
    meta = {
        "files": files,
        "domain": "toy",
        "content_sha256": CONTENT,
        "resolution": resolution,
        "pool": next(iter(arrays)),
        "sets": sets,
        "tasks": tasks,
    }
    write_json(root / "meta.json", meta)
    return Store(root)


def replace(store: Store, name: str, array: np.ndarray) -> None:
    """Put other content into a file of a store, as a decoder would have written it."""
    np.save(store.root / name, array)
    meta = read_json(store.root / "meta.json")
    meta["files"][name] = sha256_file(store.root / name)
    write_json(store.root / "meta.json", meta)
    store.__init__(store.root)  # type: ignore[misc] - read anew, in place


def splits(prefix: str = "") -> dict[str, str]:
    return {split: f"{prefix}{split}" for split in ("train", "val", "test")}


COUNTS = {"train": 24, "val": 12, "test": 12}


def dense_toy(root: Path, *, counts: dict[str, int] = COUNTS) -> tuple[Store, FeatureSet]:
    """Class maps and depths that a linear head can read off the patch tokens; 20 % of the pixels are unlabelled."""
    rng, grid, side, width = np.random.default_rng(0), 4, 16, 8
    arrays: dict[str, dict[str, np.ndarray]] = {}
    features = FeatureSet()
    columns = np.arange(grid)
    for split, count in counts.items():
        edge = rng.integers(1, grid, size=count)
        left = columns[None, :] < edge[:, None]
        classes = np.broadcast_to(np.where(left, 0, 1)[:, None, :], (count, grid, grid))
        patches = rng.normal(0, 0.05, (count, grid, grid, width))
        patches[..., 0] += classes * 4.0 - 2.0
        patches[..., 1] += classes * 2.0
        scale = side // grid
        truth = classes.repeat(scale, 1).repeat(scale, 2).astype(np.uint8)
        metres = np.where(truth == 0, 1.0, 3.0).astype(np.float32)
        unlabelled = rng.random(truth.shape) < 0.2
        truth[unlabelled] = 255
        metres[unlabelled] = 0
        arrays[split] = {
            "images": rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8),
            "segmentation": truth,
            "depth": metres,
        }
        features.patches[split] = patches.astype(np.float16)
    tasks = {
        "segmentation": {"sets": splits(), "classes": ["left", "right"]},
        "depth": {"sets": splits(), "depth_range": [0.1, 10.0]},
    }
    store = write_store(root / "store", arrays, tasks, resolution=side)
    return store, features


def linear_toy(
    root: Path, *, counts: dict[str, int] = COUNTS, classes: int = 3, noise: float = 0.1
) -> tuple[Store, FeatureSet]:
    """Class tokens around one direction per class."""
    rng, width = np.random.default_rng(0), 8
    centres = np.eye(classes, width)
    arrays: dict[str, dict[str, np.ndarray]] = {}
    features = FeatureSet()
    for split, count in counts.items():
        labels = np.arange(count, dtype=np.int64) % classes
        scale = rng.uniform(1, 5, (count, 1))
        features.cls[split] = (scale * (centres[labels] + rng.normal(0, noise, (count, width)))).astype(np.float32)
        arrays[split] = {"labels": labels}
    names = [f"class{i}" for i in range(classes)]
    store = write_store(root / "store", arrays, {"classification": {"sets": splits(), "classes": names}})
    return store, features
