"""Galaxy10 DECaLS: galaxy morphology."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

import h5py
import numpy as np

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.decode import Sample, decode_array
from lowdata_cpt.data.layouts.folders import DatasetCard, FolderDomain
from lowdata_cpt.data.store import Task, TaskInfo
from lowdata_cpt.data.writer import Item, write_splits

FILE = "Galaxy10_DECals.h5"
CLASSES = (
    "Disturbed", "Merging", "Round Smooth", "In-between Round Smooth", "Cigar Shaped Smooth", "Barred Spiral",
    "Unbarred Tight Spiral", "Unbarred Loose Spiral", "Edge-on without Bulge", "Edge-on with Bulge",
)  # fmt: skip


class Galaxy10(FolderDomain):
    """Galaxy10 DECaLS, 10 classes."""

    label: ClassVar[str] = "Galaxy10"
    kind: Literal["galaxy10"] = "galaxy10"

    labelled: ClassVar[tuple[Task, ...]] = ("classification",)
    dataset: ClassVar[DatasetCard] = DatasetCard(
        title="Galaxy10 DECaLS",
        images=(17_736,),
        source="Leung and Bovy (astroNN): images of the DESI Legacy Imaging Surveys with labels of Galaxy Zoo "
        "(Walmsley et al., MNRAS 2022; Lintott et al.); 17,736 images of 256×256 pixels in g, r and z.",
        licence="MIT by the authors' repository; survey images under their own terms.",
        how_to_get=f"download {FILE} from the Galaxy10 page of the astroNN documentation into that folder",
        split="None published: seeded, balanced over classes (`test_fraction`, `val_fraction`).",
        labels="10 classes, `ans`.",
        limits="Classes are unbalanced (334 to 2,645 images).",
    )

    def sources(self) -> Iterable[Path]:
        """Return the one file."""
        return [self.need(FILE)]

    def build(self, target: Path) -> None:
        """Decode all images; strata are the classes."""
        path = self.need(FILE)
        try:
            file = h5py.File(path, "r")
        except OSError:
            self.wrong_layout(f"{path} is not a whole HDF5 file")
        with file:
            if "images" not in file or "ans" not in file:
                self.wrong_layout(f"{path} has no `images` or no `ans`")
            images, labels = file["images"], np.asarray(file["ans"]).astype(np.int64)
            if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
                raise UserError(
                    f"{path}: images {images.dtype}{images.shape}, expected uint8 (N, H, W, 3) and N labels"
                )
            if labels.min() < 0 or labels.max() >= len(CLASSES):
                raise UserError(f"{path}: labels {labels.min()} to {labels.max()}, expected 0 to {len(CLASSES) - 1}")

            def item(row: int) -> Item:
                def decode() -> Sample:
                    return decode_array(_row(images, row), self.resolution, int(labels[row]))

                return Item(f"{row:05d}", decode, CLASSES[labels[row]])

            tasks: dict[Task, TaskInfo] = {"classification": TaskInfo(sets={}, classes=CLASSES)}
            with self.writer(target) as writer:
                splits = self.arrange({"": [item(row) for row in range(len(labels))]})
                write_splits(writer, self.kind, splits, tasks)


def _row(images: Any, row: int) -> np.ndarray:
    return np.asarray(images[row])
