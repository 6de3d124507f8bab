"""PASCAL-Context: VOC 2010 images with 59 classes of things and stuff."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.data.decode import class_table
from lowdata_cpt.data.layouts.folders import DatasetCard, lines_of
from lowdata_cpt.data.layouts.masked import MaskedFiles, Pair

CLASSES = (
    "aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat", "book", "bottle", "building", "bus",
    "cabinet", "car", "cat", "ceiling", "chair", "cloth", "computer", "cow", "cup", "curtain", "dog", "door", "fence",
    "floor", "flower", "food", "grass", "ground", "horse", "keyboard", "light", "motorbike", "mountain", "mouse",
    "person", "plate", "platform", "pottedplant", "road", "rock", "sheep", "shelves", "sidewalk", "sign", "sky",
    "snow", "sofa", "table", "track", "train", "tree", "truck", "tvmonitor", "wall", "water", "window", "wood",
)  # fmt: skip
"""The 59 most frequent labels, in the order of the authors' 59_labels.txt."""

LISTS = "ImageSets/SegmentationContext"


class PascalContext(MaskedFiles):
    """PASCAL-Context, 59 classes."""

    label: ClassVar[str] = "Pascal Context"
    kind: Literal["pascal_context"] = "pascal_context"

    segmentation_classes: ClassVar[int] = len(CLASSES)
    dataset: ClassVar[DatasetCard] = DatasetCard(
        title="PASCAL-Context, 59 classes",
        images=(4996, 5104),
        source='Mottaghi et al., "The Role of Context for Object Detection and Semantic Segmentation in the Wild", '
        "CVPR "
        "2014, on the images of PASCAL VOC 2010.",
        licence="Images: Flickr terms, research use; annotations: not stated.",
        how_to_get="put JPEGImages/ of VOC 2010, the 59-class annotations of the authors' PASCAL-Context page as "
        f"SegmentationClassContext/<id>.png (0 = none, 1…59) and the lists {LISTS}/train.txt and val.txt into that "
        f"folder "
        "(the layout that segmentation toolboxes call VOCdevkit/VOC2010)",
        split="4,996 training images (val is a seeded part, the pool the rest) and the 5,104 validation images as "
        "test.",
        labels="59 classes; 0 (background, every other label) is ignored (255), 1…59 become 0…58.",
        limits="The 60-class variant, in which background counts, is another benchmark.",
    )

    def lists(self) -> tuple[Path, ...]:
        """Return the lists of both splits."""
        return tuple(self.need(LISTS, f"{split}.txt") for split in ("train", "val"))

    def classes(self) -> tuple[str, ...]:
        """Return the 59 names."""
        return CLASSES

    def table(self) -> NDArray[np.int16]:
        """Return 0 -> ignored, 1…59 -> 0…58."""
        return class_table({raw: raw - 1 for raw in range(1, len(CLASSES) + 1)}, ignored=(0,))

    def contents(self) -> dict[str, list[Pair]]:
        """Return the listed images with their masks."""
        images, masks = self.need("JPEGImages"), self.need("SegmentationClassContext")
        return {
            split: [self.pair(images / f"{name}.jpg", masks / f"{name}.png") for name in lines_of(path)]
            for split, path in zip(("train", "test"), self.lists(), strict=True)
        }
