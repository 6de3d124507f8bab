"""The decoded form of a domain: memory-mapped uint8 images with labels, one folder per content key.

Layout of a store folder (everything is .npy, .csv or .json; nothing is pickled)::

    meta.json                 domain, resolution, sets, tasks, sha256 of each file (see `Meta`)
    index.csv                 array,row,id,sha256,stratum   one row an image of an array
    quarantine.csv            id,reason                   what could not be decoded, and what else was left out
    <array>.images.npy        uint8   [M, H, W, 3]
    <array>.segmentation.npy  uint8   [M, H, W]           class ids, `ignore_index` where unlabelled
    <array>.depth.npy         float32 [M, H, W]           metres; 0 where not measured
    <array>.labels.npy        int64   [M]                 class ids
    groups.npy                str     [K, 2]              id of each image and its group, of a domain that has groups
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
from lowdata_cpt.core.io import identity, is_intact, read_json
from lowdata_cpt.core.strict import Strict

Task = Literal["classification", "segmentation", "depth"]
Split = Literal["train", "val", "test"]
TASKS: tuple[Task, ...] = ("classification", "segmentation", "depth")
SPLITS: tuple[Split, ...] = ("train", "val", "test")
META, INDEX, GROUPS = "meta.json", "index.csv", "groups.npy"


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
    """meta.json of a store. `pool` names the unlabelled set that subsets are drawn from.

    Attributes:
        files: sha256 of the index and of every array, as they were written.
        content_sha256: of all the rest of this; what is decoded to the same bytes has the same one.
    """

    domain: str
    content_sha256: str
    resolution: int
    pool: str
    sets: dict[str, ImageSet]
    tasks: dict[Task, TaskInfo]
    files: dict[str, str]

    def content(self) -> str:
        """Return what `content_sha256` should be."""
        return identity(self.model_dump(mode="json", exclude={"content_sha256"}))


class Store:
    """Read access to a decoded domain. A file's hash is checked when this process first uses it."""

    def __init__(self, root: str | Path) -> None:
        """Open the store in folder `root`.

        Raises:
            UserError: `root` is not a complete store.
        """
        self.root = Path(root)
        path = self.root / META
        try:
            self.meta = Meta.model_validate(read_json(path))
        except ValidationError as error:
            raise UserError(
                f"{path}: not a store of this version ({error.error_count()} errors); {self.remedy}"
            ) from None
        except UserError as error:
            raise UserError(f"{error}; {self.remedy}") from None

    @classmethod
    def open(cls, manifest: Path) -> Store:
        """Open the store beside a data manifest, and check that it is the content the manifest names.

        Raises:
            UserError: the store is missing, damaged, or holds other content.
        """
        folder = manifest.parent / "store"
        try:
            facts = read_json(manifest)
        except UserError as error:
            raise UserError(f"{error}; {_remedy(folder)}") from None
        if not isinstance(facts, dict) or not isinstance(facts.get("content_sha256"), str):
            raise UserError(f"{manifest}: not a data manifest, expected a content_sha256; {_remedy(folder)}")
        if not (folder / META).exists():
            raise UserError(f"{folder}: the decoded images of {manifest} are missing; {_remedy(folder)}")
        store = cls(folder)
        if store.meta.content_sha256 != facts["content_sha256"]:
            raise UserError(f"{folder}: holds other content than {manifest} says; {store.remedy}")
        if store.meta.content() != store.meta.content_sha256:
            raise UserError(f"{folder / META}: damaged, it is not what was written; {store.remedy}")
        return store

    @property
    def remedy(self) -> str:
        """What to do about a damaged file of this store."""
        return _remedy(self.root)

    def verify(self) -> None:
        """Check every file of the store.

        Raises:
            UserError: one is missing or damaged.
        """
        if self.meta.content() != self.meta.content_sha256:
            raise UserError(f"{self.root / META}: damaged, it is not what was written; {self.remedy}")
        for name in self.meta.files:
            self._file(name)

    def _file(self, name: str) -> Path:
        """Return the path of a file whose content is what was written.

        Raises:
            UserError: it is missing or damaged.
        """
        path = self.root / name
        try:
            if not is_intact(path, self.meta.files.get(name)):
                raise UserError(f"{path}: damaged, its sha256 is not the one that was written; {self.remedy}")
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); {self.remedy}") from None
        return path

    @cached_property
    def index(self) -> pd.DataFrame:
        """index.csv: columns array,row,id,sha256,stratum."""
        return pd.read_csv(
            self._file(INDEX),
            dtype={"array": str, "id": str, "sha256": str, "stratum": str},
            keep_default_na=False,
        )

    def _set(self, name: str) -> ImageSet:
        if name not in self.meta.sets:
            raise UserError(f"{self.root}: no image set {name!r}; there are {sorted(self.meta.sets)}")
        return self.meta.sets[name]

    def _read(self, name: str, kind: str) -> NDArray[np.generic]:
        image_set = self._set(name)
        path = self._file(f"{image_set.array}.{kind}.npy")
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

    def groups(self, name: str) -> NDArray[np.int32]:
        """Return the group of each image of one set [M], numbered, of a domain that has groups."""
        of = dict(np.load(self._file(GROUPS), allow_pickle=False).tolist())
        numbers = {group: number for number, group in enumerate(sorted(set(of.values())))}
        return np.array([numbers[of[image]] for image in self.rows(name)["id"]], np.int32)

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


def _remedy(root: Path) -> str:
    """Return the command that decodes a store again."""
    manifest = root.parent / "manifest.json"
    if root.name == "store":
        return f"`snakemake --cores 1 --force {manifest}` (with the study's --configfile) decodes it again"
    return f"delete the folder {root} and run the data step again"
