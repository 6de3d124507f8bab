"""Draw blocks of scenes and keep each as a shard, written when complete, so that a killed render continues."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lowdata_cpt.core.io import atomic_path, write_json
from lowdata_cpt.data.tabletop.catalogue import KIND_OF, KINDS
from lowdata_cpt.data.tabletop.scenes import SPLITS_WITH_NEW_OBJECTS, Scene, draw_scene, scene_seed

# A crop needs more visible pixels than this in a picture of 224 px; the bound scales with the picture's area.
MIN_PIXELS_AT_224 = 400
MARGIN = 0.15


@dataclass(frozen=True)
class Shard:
    """One block of a split: scenes `start` to `stop` (exclusive), kept as `path`.npz and then `path`.json."""

    split: str
    start: int
    stop: int
    path: Path

    @property
    def done(self) -> bool:
        """Whether it is complete."""
        return self.path.with_suffix(".json").is_file()


@dataclass(frozen=True)
class Settings:
    """What decides the pictures besides a scene's number."""

    seed: int
    resolution: int
    crop_size: int


_renderer: Any = None


def start_worker(backend: str) -> None:
    """Prepare a process: MuJoCo reads MUJOCO_GL when it is first imported, and one thread a process is enough."""
    os.environ["MUJOCO_GL"] = backend
    os.environ.setdefault("LP_NUM_THREADS", "1")


def build_model(root: Path) -> Path:
    """Build the compact model in this process."""
    from lowdata_cpt.data.tabletop.model import compact_model

    return compact_model(root)


def draw_shard(shard: Shard, settings: Settings, model: Path) -> None:
    """Draw one shard in this process, which keeps its renderer for the next."""
    global _renderer
    from lowdata_cpt.data.tabletop.renderer import Renderer

    if _renderer is None:
        _renderer = Renderer(model, settings.resolution)
    arrays: dict[str, list[Any]] = {key: [] for key in ("images", "segmentation", "instances", "depth")}
    crops: dict[str, list[Any]] = {"crop_images": [], "crop_labels": [], "crop_places": []}
    records = []
    for number in range(shard.start, shard.stop):
        seed = scene_seed(settings.seed, shard.split, number)
        scene = draw_scene(seed, shard.split in SPLITS_WITH_NEW_OBJECTS, _renderer.extents)
        frame = _renderer.draw(scene)
        instances = frame.instances[1::2, 1::2]
        segmentation = _kinds_of(scene)[instances]
        records.append(_record(scene, segmentation))
        arrays["images"].append(halve(frame.image))
        if shard.split == "pool":
            continue
        arrays["segmentation"].append(segmentation)
        arrays["instances"].append(instances)
        arrays["depth"].append(frame.depth[1::2, 1::2])
        for instance in visible(instances):
            crops["crop_images"].append(crop(frame.image, frame.instances == instance, settings.crop_size))
            crops["crop_labels"].append(int(_kinds_of(scene)[instance]) - 1)
            crops["crop_places"].append((number, instance))
    size = settings.crop_size
    stacked = {key: np.stack(value) for key, value in arrays.items() if value}
    if shard.split != "pool":
        stacked["crop_images"] = np.array(crops["crop_images"], np.uint8).reshape(-1, size, size, 3)
        stacked["crop_labels"] = np.array(crops["crop_labels"], np.int64)
        stacked["crop_places"] = np.array(crops["crop_places"], np.int64).reshape(-1, 2)
    with atomic_path(shard.path.with_suffix(".npz")) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **stacked)
    write_json(shard.path.with_suffix(".json"), records)


def _kinds_of(scene: Scene) -> NDArray[np.uint8]:
    """Return the segmentation class of each instance of a scene, class 0 (background) first."""
    return np.array([0, *(KIND_OF[item.name] for item in scene.items)], np.uint8)


def _record(scene: Scene, segmentation: NDArray[np.uint8]) -> dict[str, Any]:
    pixels = np.bincount(segmentation.ravel(), minlength=len(KINDS) + 1)[1:]
    return {
        "seed": scene.seed,
        "stratum": KINDS[int(pixels.argmax())].name if pixels.any() else "none",
        "table_height": scene.table_height,
        "camera": asdict(scene.camera),
        "objects": [item.name for item in scene.items],
    }


def halve(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average each 2 × 2 block of uint8 [2H, 2W, 3] into uint8 [H, W, 3]."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    blocks = image.reshape(height, 2, width, 2, 3).astype(np.uint16)
    halved: NDArray[np.uint8] = ((blocks.sum((1, 3)) + 2) // 4).astype(np.uint8)
    return halved


def visible(instances: NDArray[np.uint8]) -> list[int]:
    """Return the instances of uint8 [H, W] that show enough pixels for a crop."""
    enough = MIN_PIXELS_AT_224 * instances.size / 224**2
    pixels = np.bincount(instances.ravel())
    return [number for number in range(1, len(pixels)) if pixels[number] > enough]


def crop(image: NDArray[np.uint8], mask: NDArray[np.bool_], size: int) -> NDArray[np.uint8]:
    """Cut the square around a mask, with a margin, kept inside the picture: uint8 [size, size, 3]."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    low = np.array([columns[0], rows[0]], float)
    high = np.array([columns[-1] + 1, rows[-1] + 1], float)
    limit = float(mask.shape[0])
    side = min(limit, float((high - low).max()) * (1 + 2 * MARGIN))
    left, top = np.clip((low + high - side) / 2, 0, limit - side)
    box = (float(left), float(top), float(left + side), float(top + side))
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box))
