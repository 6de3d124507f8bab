"""The table-top domain of the study: renders once, then is a store like any other."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from lowdata_cpt.core.code_versions import code_version
from lowdata_cpt.core.io import identity, read_json, sha256_bytes
from lowdata_cpt.core.packages import install, pinned_lines
from lowdata_cpt.core.paths import REPOSITORY
from lowdata_cpt.data.domain import Domain
from lowdata_cpt.data.store import INDEX, SPLITS, ImageSet, Split, Store, Task, TaskInfo
from lowdata_cpt.data.tabletop.catalogue import FAR, NEAR, PACKAGES
from lowdata_cpt.data.tabletop.render import render
from lowdata_cpt.data.writer import write_meta

PACKAGE_CACHE = Path(".cache/packages/tabletop")


class Tabletop(Domain):
    """Rendered household objects on table tops: classification, segmentation and metric depth (m), exact."""

    label: ClassVar[str] = "Tabletop"
    kind: Literal["tabletop"] = "tabletop"
    pool: int = Field(default=1000, ge=1, description="Unlabelled scenes.")
    train: int = Field(default=300, ge=1, description="Labelled scenes for the probes.")
    val: int = Field(default=100, ge=1, description="Labelled scenes for selection.")
    test: int = Field(default=200, ge=1, description="Labelled scenes for the reported scores.")
    seed: int = Field(default=0, ge=0, description="Seed of all scenes.")
    crop_size: int = Field(default=112, ge=16, description="Side in pixels of the crops that are classified.")
    max_crops: int | None = Field(default=None, ge=50, description="Use the first so many crops of each split only.")
    max_test_crops: int | None = Field(default=None, ge=50, description="The same for test, instead of `max_crops`.")

    labelled: ClassVar[tuple[Task, ...]] = ("classification", "segmentation", "depth")

    @model_validator(mode="after")
    def _pool_is_large_enough(self) -> Self:
        if self.sizes and max(self.sizes) > self.pool:
            raise ValueError(f"sizes ask for {max(self.sizes)} images, but the pool has {self.pool}")
        return self

    def count(self) -> int:
        """Return the number of labelled scenes and of their crops, which are about one a scene."""
        scenes = self.train + self.val + self.test
        return scenes + 3 * (self.max_crops or scenes)

    def groups(self, store: Store, task: Task) -> NDArray[np.int32] | None:
        """Return the scene of each crop that is classified: up to a dozen are cut from one."""
        if task != "classification":
            return None
        scenes = store.rows(store.task(task).sets["test"])["id"].str.rsplit("-", n=1).str[0]
        return np.unique(scenes, return_inverse=True)[1].astype(np.int32)

    def raw_fingerprint(self) -> str:
        """Return the pinned versions of the assets' packages; they are installed when they are needed."""
        return identity(pinned_lines(PACKAGES))

    def build(self, target: Path) -> None:
        """Install the assets if need be and render; a killed render continues from its finished blocks."""
        root = install(PACKAGES, PACKAGE_CACHE)
        counts: dict[str, int] = {"pool": self.pool} | {split: getattr(self, split) for split in SPLITS}
        unfinished = identity([self.fingerprint(), code_version(*self.code_modules())])[:16]
        render(
            root,
            target,
            resolution=self.resolution,
            counts=counts,
            seed=self.seed,
            processes=len(os.sched_getaffinity(0)),
            crop_size=self.crop_size,
            shards=target.parent / f".shards-{unfinished}",
        )
        index = read_json(target / "index.json")
        self._write_index(target, index)
        classes = tuple(index["classes"])
        scenes: dict[Split, str] = {split: split for split in SPLITS}
        crops: dict[Split, str] = {split: f"crops_{split}" for split in SPLITS}
        sets = {name: ImageSet(array=name, rows=self._kept(name, index)) for name in (*counts, *crops.values())}
        tasks: dict[Task, TaskInfo] = {
            "classification": TaskInfo(sets=crops, classes=classes),
            "segmentation": TaskInfo(sets=scenes, classes=("background", *classes)),
            "depth": TaskInfo(sets=scenes, depth_range=(NEAR, FAR)),
        }
        write_meta(target, self.kind, self.resolution, "pool", sets, tasks)

    def _kept(self, name: str, index: dict[str, Any]) -> tuple[int, ...] | None:
        """Return the rows of a set that are used: all (None), or the first `max_crops` of a set of crops."""
        most = (self.max_test_crops if name == "crops_test" else None) or self.max_crops
        if most is None or not name.startswith("crops_"):
            return None
        return tuple(range(min(most, len(index["crops"][name.removeprefix("crops_")]))))

    @staticmethod
    def _write_index(target: Path, index: dict[str, Any]) -> None:
        with (target / INDEX).open("w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream, lineterminator="\n")
            rows.writerow(["array", "row", "id", "sha256", "stratum"])
            for split, scenes in index["splits"].items():
                images = np.load(target / f"{split}.images.npy", mmap_mode="r", allow_pickle=False)
                for row, scene in enumerate(scenes):
                    name = f"{split}-{row:05d}"
                    rows.writerow([split, row, name, sha256_bytes(images[row].tobytes()), scene["stratum"]])
            for split, places in index["crops"].items():
                images = np.load(target / f"crops_{split}.images.npy", mmap_mode="r", allow_pickle=False)
                for row, (_, scene, instance) in enumerate(places):
                    name = f"{split}-{scene:05d}-{instance}"
                    rows.writerow([f"crops_{split}", row, name, sha256_bytes(images[row].tobytes()), ""])

    @classmethod
    def card(cls) -> str:
        """Return docs/data/tabletop.md."""
        return (REPOSITORY / "docs/data/tabletop.md").read_text(encoding="utf-8")
