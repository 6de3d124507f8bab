"""Cityscapes: street scenes of 50 cities, fine annotations."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.data.decode import class_table
from lowdata_cpt.data.layouts.folders import DatasetCard
from lowdata_cpt.data.layouts.masked import MaskedFiles, Pair

CLASSES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
"""labelIds value -> name of the 19 evaluated classes, in the order of their train ids."""

IMAGE, MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"


class Cityscapes(MaskedFiles):
    """Cityscapes, 19 classes."""

    label: ClassVar[str] = "Cityscapes"
    kind: Literal["cityscapes"] = "cityscapes"

    segmentation_classes: ClassVar[int] = len(CLASSES)
    dataset: ClassVar[DatasetCard] = DatasetCard(
        title="Cityscapes, fine annotations",
        images=(2975, 500),
        source='Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016; 2048×1024.',
        licence="The Cityscapes terms: non-commercial research, registration needed, no redistribution.",
        how_to_get="register at the Cityscapes site, download leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip "
        "and unpack both so that leftImg8bit/{train,val} and gtFine/{train,val} lie in that folder",
        split="2,975 training images (val is a seeded part, the pool the rest) and the 500 validation images as test, "
        "since "
        "the test annotations are not public. Strata: cities.",
        labels="19 classes from `labelIds` (the official train ids); every other id is ignored (255).",
        limits="The central square is half of a 2:1 frame; figures are not comparable with whole-frame ones.",
    )

    def classes(self) -> tuple[str, ...]:
        """Return the 19 names."""
        return tuple(CLASSES.values())

    def table(self) -> NDArray[np.int16]:
        """Return labelIds -> train ids, all others ignored."""
        return class_table({raw: label for label, raw in enumerate(CLASSES)}, ignored=None)

    def contents(self) -> dict[str, list[Pair]]:
        """Return train and val with their masks."""
        return {
            split: [
                self.pair(
                    image,
                    self.folder / "gtFine" / folder / image.parent.name / image.name.replace(IMAGE, MASK),
                    image.parent.name,
                )
                for image in self.images("leftImg8bit", folder)
            ]
            for split, folder in (("train", "train"), ("test", "val"))
        }
