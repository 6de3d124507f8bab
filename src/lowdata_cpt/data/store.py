"""The decoded form of a domain: memory-mapped uint8 images with labels, one folder per content key.

Layout of a store folder (everything is .npy, .csv or .json; nothing is pickled)::

    meta.json                 domain, resolution, sets, tasks (see `Meta`)
    index.csv                 array,row,id,sha256,stratum   one row an image of an array
    quarantine.csv            id,reason                   images that could not be decoded
    <array>.images.npy        uint8   [M, H, W, 3]
    <array>.segmentation.npy  uint8   [M, H, W]           class ids, `ignore_index` where unlabelled
    <array>.depth.npy         float32 [M, H, W]           metres; 0 where not measured
    <array>.labels.npy        int64   [M]                 class ids
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json
from lowdata_cpt.core.strict import Strict

Task = Literal["classification", "segmentation", "depth"]
Split = Literal["train", "val", "test"]
TASKS: tuple[Task, ...] = ("classification", "segmentation", "depth")
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class ImageSet(Strict):
    """A named set of images: rows of one array file, all of them when `rows` is None."""

    array: str
    rows: tuple[int, ...] | None = None


class TaskInfo(Strict):
    """What a task is on this domain.

    Attributes:
        sets: split -> name of the image set that carries this task's labels.
        classes: class names in id order (classification, segmentation).
        ignore_index: the label that neither trains nor counts (segmentation).
        depth_range: valid depths in metres, inclusive (depth).
        eval_crop: top, bottom, left, right as fractions of the image; pixels outside do not count (depth).
    """

    sets: dict[Split, str]
    classes: tuple[str, ...] = ()
    ignore_index: int = 255
    depth_range: tuple[float, float] = (1e-3, 10.0)
    eval_crop: tuple[float, float, float, float] | None = None


class Meta(Strict):
    """meta.json of a store. `pool` names the unlabelled set that subsets are drawn from."""

    domain: str
    content_sha256: str
    resolution: int
    pool: str
    sets: dict[str, ImageSet]
    tasks: dict[Task, TaskInfo]


class Store:
    """Read access to a decoded domain."""

    def __init__(self, root: str | Path) -> None:
        """Open the store in folder `root`.

        Raises:
            UserError: `root` is not a complete store.
        """
        self.root = Path(root)
        try:
            self.meta = Meta.model_validate(read_json(self.root / "meta.json"))
        except ValidationError as error:
            raise UserError(
                f"{self.root / 'meta.json'}: not a store of this version ({error.error_count()} errors)"
            ) from None

    @classmethod
    def open(cls, manifest: Path) -> Store:
        """Open the store beside a data manifest, and check that it is the content the manifest names.

        Raises:
            UserError: the store is missing or holds other content.
        """
        facts, folder = read_json(manifest), manifest.parent / "store"
        if not (folder / "meta.json").exists():
            raise UserError(f"{folder}: the decoded images of {manifest} are missing; run `snakemake --forcerun data`")
        store = cls(folder)
        if store.meta.content_sha256 != facts["content_sha256"]:
            raise UserError(f"{folder}: holds other content than {manifest} says; run `snakemake --forcerun data`")
        return store

    @cached_property
    def index(self) -> pd.DataFrame:
        """index.csv: columns array,row,id,sha256,stratum."""
        return pd.read_csv(
            self.root / "index.csv",
            dtype={"array": str, "id": str, "sha256": str, "stratum": str},
            keep_default_na=False,
        )

    def _set(self, name: str) -> ImageSet:
        if name not in self.meta.sets:
            raise UserError(f"{self.root}: no image set {name!r}; there are {sorted(self.meta.sets)}")
        return self.meta.sets[name]

    def _read(self, name: str, kind: str) -> NDArray[np.generic]:
        image_set = self._set(name)
        path = self.root / f"{image_set.array}.{kind}.npy"
        if not path.exists():
            raise UserError(f"{path}: missing; delete the folder {self.root} and run the data step again")
        array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
        rows = image_set.rows
        if rows is None:
            return array
        if rows and rows == tuple(range(rows[0], rows[0] + len(rows))):
            return array[rows[0] : rows[0] + len(rows)]  # a run of rows stays memory-mapped
        return array[list(rows)]

    def rows(self, name: str) -> pd.DataFrame:
        """Return index.csv for one image set, in the set's order, with a fresh 0-based index."""
        image_set = self._set(name)
        frame = self.index[self.index["array"] == image_set.array].set_index("row").sort_index()
        if image_set.rows is not None:
            frame = frame.loc[list(image_set.rows)]
        return frame.reset_index()

    def held_out(self) -> dict[str, str]:
        """Return sha256 -> "validation" or "test" of every image of such a set, whatever the task."""
        called = {"val": "validation", "test": "test"}
        return {
            digest: called[split]
            for info in self.meta.tasks.values()
            for split, name in info.sets.items()
            if split in called
            for digest in self.rows(name)["sha256"]
        }

    def images(self, name: str) -> NDArray[np.uint8]:
        """Return images of a set: uint8 [M, H, W, 3], memory-mapped where the set is a run of rows."""
        return self._read(name, "images")  # type: ignore[return-value]

    def labels(self, name: str) -> NDArray[np.int64]:
        """Return class ids of a set: int64 [M]."""
        return self._read(name, "labels")  # type: ignore[return-value]

    def segmentation(self, name: str) -> NDArray[np.uint8]:
        """Return class maps of a set: uint8 [M, H, W]."""
        return self._read(name, "segmentation")  # type: ignore[return-value]

    def depth(self, name: str) -> NDArray[np.float32]:
        """Return depth maps of a set: float32 [M, H, W] in metres, 0 where not measured."""
        return self._read(name, "depth")  # type: ignore[return-value]

    def task(self, task: Task) -> TaskInfo:
        """Return a task's description.

        Raises:
            UserError: the domain has no labels for it.
        """
        if task not in self.meta.tasks:
            raise UserError(f"domain {self.meta.domain!r} has no {task} labels; it has {sorted(self.meta.tasks)}")
        return self.meta.tasks[task]
