"""Folders as users have them: road cracks, crop and weed, RGB-D. Pictures say what the labels are."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lowdata_cpt.data.domain import prepare
from lowdata_cpt.data.layouts.image_folder import ImageFolder
from lowdata_cpt.data.store import Store

SIDE = (40, 30)  # width, height
CROP, WEED, SOIL, EDGE = (0, 255, 0), (255, 0, 0), (0, 0, 0), (255, 255, 255)
BINARY = {"classes": ["road", "crack"]}
COLOURS = {"classes": {"soil": SOIL, "crop": CROP, "weed": WEED}, "ignore": [EDGE]}
MILLIMETRES = {"scale": 0.001}


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 60, (SIDE[1], SIDE[0], 3)).astype(np.uint8)


def cracks(folder: Path, count: int = 12) -> Path:
    """Grey roads with a bright crack; masks 0 and 255."""
    for i in range(count):
        image, mask = noise(i), np.zeros(SIDE[::-1], np.uint8)
        mask[:, 10 + i : 13 + i] = 255
        image[mask > 0] += 150
        write(folder / f"images/road{i // 3}_{i:02d}.png", image)
        write(folder / f"masks/road{i // 3}_{i:02d}.png", mask)
    return folder


def fields(folder: Path, counts: tuple[int, int, int] = (6, 2, 3)) -> Path:
    """Soil with crop, weed and an edge that does not count; split folders, colour masks."""
    seed = 0
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        for i in range(count):
            seed += 1
            image, mask = noise(seed), np.full((SIDE[1], SIDE[0], 3), SOIL, np.uint8)
            mask[5:15, 8:18], mask[16:26, 20:32], mask[:, :6] = CROP, WEED, EDGE
            image[(mask == CROP).all(2), 1] += 150
            image[(mask == WEED).all(2), 0] += 150
            write(folder / split / "images" / f"{i}.png", image)
            write(folder / split / "masks" / f"{i}.png", mask)
    return folder


def rgbd(folder: Path, count: int = 12) -> Path:
    """Brighter is nearer; 16-bit depth in millimetres, 0 where not measured; labels.csv says room and video."""
    rows = ["file,class,video"]
    for i in range(count):
        depth = np.repeat(np.linspace(500, 4000, SIDE[0])[None], SIDE[1], 0).astype(np.uint16)
        depth[:4] = 0
        image = noise(i)
        image[..., 2] = (255 - depth / 20).astype(np.uint8)
        write(folder / f"images/{i:02d}.png", image)
        write(folder / f"depth/{i:02d}.png", depth)
        rows.append(f"{i:02d}.png,{'kitchen' if i % 2 else 'office'},v{i // 2}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def yard(folder: Path) -> Path:
    """`rgbd` with masks 0 and 255 of what is near, too: every kind of label on the same images."""
    rgbd(folder)
    for path in sorted((folder / "depth").iterdir()):
        depth = np.asarray(Image.open(path))
        write(folder / "masks" / path.name, np.where((depth > 0) & (depth < 2000), 255, 0).astype(np.uint8))
    return folder


def opened(folder: Path, **settings: Any) -> Store:
    domain = ImageFolder.model_validate({"root": str(folder), "resolution": 30, **settings})
    store = prepare(domain, folder.parent / f"{folder.name}.cache")
    assert set(store.meta.tasks) == set(domain.tasks())
    return store


def listed(store: Store) -> dict[str, str]:
    with (store.root / "quarantine.csv").open(encoding="utf-8", newline="") as stream:
        return {row["id"]: row["reason"] for row in csv.DictReader(stream)}


def ids(store: Store) -> dict[str, list[str]]:
    return {split: store.rows(split)["id"].tolist() for split in ("train", "val", "test")}
