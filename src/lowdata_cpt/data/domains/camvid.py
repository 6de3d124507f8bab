"""CamVid: driving scenes, the 11-class version with the SegNet split."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.data.decode import class_table
from lowdata_cpt.data.layouts.folders import DatasetCard
from lowdata_cpt.data.layouts.masked import MaskedFiles, Pair

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
VOID = 11


class CamVid(MaskedFiles):
    """CamVid, 11 classes."""

    label: ClassVar[str] = "CamVid"
    kind: Literal["camvid"] = "camvid"

    segmentation_classes: ClassVar[int] = len(CLASSES)
    dataset: ClassVar[DatasetCard] = DatasetCard(
        title="CamVid, 11 classes",
        images=(367, 101, 233),
        source='Brostow, Fauqueur and Cipolla, "Semantic object classes in video", Pattern Recognition Letters 2009; '
        "the "
        "480×360 version and split of SegNet (Badrinarayanan, Kendall and Cipolla).",
        licence="Research use; check before redistribution.",
        how_to_get="get the CamVid folder of the SegNet tutorial (or a copy in its layout) and put train, trainannot, "
        "val, valannot, test and testannot into that folder",
        split="SegNet's: 367 training (the pool), 101 validation and 233 test frames. Strata: video sequences.",
        labels="11 classes, 0…10; 11 (void) is ignored (255).",
        limits="Frames of one sequence are near-duplicates of each other; the central square is 3/4 of a frame.",
    )

    def classes(self) -> tuple[str, ...]:
        """Return the 11 names."""
        return CLASSES

    def table(self) -> NDArray[np.int16]:
        """Return 0…10 as they are, 11 -> ignored."""
        return class_table({raw: raw for raw in range(len(CLASSES))}, ignored=(VOID,))

    def contents(self) -> dict[str, list[Pair]]:
        """Return the three splits with their masks."""
        return {
            split: [
                self.pair(image, self.folder / f"{split}annot" / f"{image.stem}.png", image.stem.split("_")[0])
                for image in self.images(split)
            ]
            for split in ("train", "val", "test")
        }
