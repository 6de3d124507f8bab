"""Render the table-top domain: pictures, masks, depth and crops of seeded scenes into one folder."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import atomic_path, identity, read_json, sha256_file, write_array, write_json
from lowdata_cpt.core.packages import pinned_lines
from lowdata_cpt.data.tabletop.catalogue import ASSETS, FAR, HELD_OUT, KINDS, NEAR, PACKAGES
from lowdata_cpt.data.tabletop.gl import find_backend
from lowdata_cpt.data.tabletop.shards import Settings, Shard, build_model, draw_shard, start_worker

SPLITS = ("pool", "train", "val", "test")
SHARD = 12
SCENE_ARRAYS = ("images", "segmentation", "instances", "depth")


def render(
    root: Path,
    target: Path,
    *,
    resolution: int,
    counts: Mapping[str, int],
    seed: int,
    processes: int,
    crop_size: int = 112,
    shards: Path | None = None,
) -> None:
    """Render scenes with the assets installed in `root` into the folder `target`.

    Writes, for each split of `counts` (pool, train, val, test):

    - `<split>.images.npy` uint8 [M, R, R, 3]; and, but for the pool, `<split>.segmentation.npy` and
      `<split>.instances.npy` uint8 [M, R, R] (0 is background) and `<split>.depth.npy` float32 [M, R, R],
      metres along the camera's axis;
    - but for the pool, `crops_<split>.images.npy` uint8 [K, C, C, 3] and `crops_<split>.labels.npy` int64 [K];
    - `index.json`, last: what all this is, each scene's seed, stratum, camera and objects, each crop's
      (scene seed, row, instance), versions, and the sha256 of every array.

    Scene k of a split depends on (`seed`, split, k) alone: neither the counts nor the number of processes
    change it. Finished blocks of scenes stay in `shards` (default `<target>/.shards`) until all are done, so
    a killed render continues when it is called again.

    Args:
        root: folder made by `packages.install(PACKAGES, root)`; the compiled scene model is kept there too.
        target: folder for the result.
        resolution: side R of the pictures in pixels.
        counts: number of scenes of each split.
        seed: seed of the whole domain.
        processes: worker processes.
        crop_size: side C of the crops in pixels.
        shards: folder for unfinished work.

    Raises:
        UserError: an unknown split or a bad number, missing assets, no off-screen OpenGL, or a worker that died.
    """
    settings = Settings(seed, resolution, crop_size)
    _check(settings, counts, processes)
    if not (root / ASSETS).is_dir():
        raise UserError(f"{root}: no {ASSETS} in it, expected a folder made by packages.install({list(PACKAGES)})")
    request = {"seed": seed, "resolution": resolution, "crop_size": crop_size, "counts": dict(counts)}
    done = target / "index.json"
    if done.is_file() and read_json(done)["request"] == request:
        return
    done.unlink(missing_ok=True)
    backend = find_backend()
    shards = shards or target / ".shards"
    blocks = draw_shards(root, shards, settings, counts, processes, backend)
    index = {
        "request": request,
        "classes": [kind.name for kind in KINDS],
        "kinds": ["background", *(kind.name for kind in KINDS)],
        "held_out_objects": sorted(HELD_OUT),
        "depth": {"unit": "metre", "measured": "along the camera's axis", "clip": [NEAR, FAR]},
        "packages": pinned_lines(PACKAGES),
        "renderer": {"backend": backend, **{name: version(name) for name in ("mujoco", "numpy", "pillow")}},
        "splits": {},
        "crops": {},
        "sha256": {},
    }
    for split in counts:
        _assemble(target, split, [block for block in blocks if block.split == split], index)
    write_json(done, index)
    shutil.rmtree(shards, ignore_errors=True)


def _check(settings: Settings, counts: Mapping[str, int], processes: int) -> None:
    for split, count in counts.items():
        if split not in SPLITS:
            raise UserError(f"counts: unknown split {split!r}, expected some of {', '.join(SPLITS)}")
        if count < 1:
            raise UserError(f"counts: {split} is {count}, expected at least 1 scene")
    for name, value, least in (
        ("resolution", settings.resolution, 16),
        ("crop_size", settings.crop_size, 16),
        ("processes", processes, 1),
    ):
        if value < least:
            raise UserError(f"{name}: {value} is too small, expected at least {least}")


def draw_shards(
    root: Path, folder: Path, settings: Settings, counts: Mapping[str, int], processes: int, backend: str
) -> list[Shard]:
    """Draw what is missing of the shards of all splits in `folder`, and return them all, in order."""
    # Spawned, not forked: an OpenGL library does not survive a fork, and MUJOCO_GL must come before MuJoCo.
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), start_worker, (backend,))
    try:
        with pool:
            model = pool.submit(build_model, root).result()
            key = identity([model.name, settings.seed, settings.resolution, settings.crop_size, backend])[:16]
            blocks = [
                Shard(
                    split,
                    start,
                    min(start + SHARD, count),
                    folder / key / f"{split}-{start}-{min(start + SHARD, count)}",
                )
                for split, count in counts.items()
                for start in range(0, count, SHARD)
            ]
            (folder / key).mkdir(parents=True, exist_ok=True)
            jobs = [pool.submit(draw_shard, block, settings, model) for block in blocks if not block.done]
            try:
                for job in as_completed(jobs):
                    job.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except BrokenProcessPool:
        raise UserError(
            f"a rendering process died (out of memory?): run again to continue, with fewer than {processes} processes"
        ) from None
    return blocks


def _assemble(target: Path, split: str, blocks: Sequence[Shard], index: dict[str, Any]) -> None:
    names = SCENE_ARRAYS[:1] if split == "pool" else SCENE_ARRAYS
    files = {name: f"{split}.{name}.npy" for name in names}
    total = blocks[-1].stop
    places: list[NDArray[np.int64]] = []
    with ExitStack() as stack:
        scene_arrays: dict[str, Any] = {}
        for block, arrays in _read(blocks):
            for name, file in files.items():
                if name not in scene_arrays:
                    temporary = stack.enter_context(atomic_path(target / file))
                    block_shape, dtype = arrays[name].shape[1:], arrays[name].dtype
                    scene_arrays[name] = np.lib.format.open_memmap(temporary, "w+", dtype, (total, *block_shape))
                scene_arrays[name][block.start : block.stop] = arrays[name]
        for array in scene_arrays.values():
            array.flush()
    index["splits"][split] = [scene for block in blocks for scene in read_json(block.path.with_suffix(".json"))]
    if split != "pool":
        crops = {key: [arrays[f"crop_{key}"] for _, arrays in _read(blocks)] for key in ("images", "labels")}
        places = [arrays["crop_places"] for _, arrays in _read(blocks)]
        for key, parts in crops.items():
            files[f"crop_{key}"] = f"crops_{split}.{key}.npy"
            write_array(target / f"crops_{split}.{key}.npy", np.concatenate(parts))
        scenes = index["splits"][split]
        index["crops"][split] = [
            [scenes[row]["seed"], row, instance] for row, instance in np.concatenate(places).tolist()
        ]
    index["sha256"] |= {file: sha256_file(target / file) for file in files.values()}


def _read(blocks: Sequence[Shard]) -> Iterator[tuple[Shard, Mapping[str, NDArray[Any]]]]:
    for block in blocks:
        with np.load(block.path.with_suffix(".npz"), allow_pickle=False) as arrays:
            yield block, arrays
