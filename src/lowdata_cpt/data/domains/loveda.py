"""LoveDA: land cover in aerial images, urban and rural."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.data.decode import class_table
from lowdata_cpt.data.layouts.folders import DatasetCard
from lowdata_cpt.data.layouts.masked import MaskedFiles, Pair

CLASSES = ("background", "building", "road", "water", "barren", "forest", "agriculture")


class LoveDA(MaskedFiles):
    """LoveDA, 7 classes."""

    label: ClassVar[str] = "LoveDA"
    kind: Literal["loveda"] = "loveda"

    segmentation_classes: ClassVar[int] = len(CLASSES)
    dataset: ClassVar[DatasetCard] = DatasetCard(
        title="LoveDA land cover",
        images=(2522, 1669),
        source='Wang et al., "LoveDA: A Remote Sensing Land-Cover Dataset for Domain Adaptive Semantic Segmentation", '
        "NeurIPS 2021 Datasets and Benchmarks; 1024×1024 at 0.3 m.",
        licence="CC BY-NC-SA 4.0 by the authors' page.",
        how_to_get="download Train.zip and Val.zip of LoveDA from the authors' archive (linked from their LoveDA "
        "repository) and unpack them so that {Train,Val}/{Urban,Rural}/{images_png,masks_png} lie in that folder",
        split="2,522 training images (val is a seeded part, the pool the rest) and the 1,669 validation images as "
        "test, since "
        "the test annotations are not public. Strata: urban and rural.",
        labels="7 classes; 0 (no data) is ignored (255), 1…7 become 0…6. `background` is a class.",
        limits="None known.",
    )

    def classes(self) -> tuple[str, ...]:
        """Return the 7 names."""
        return CLASSES

    def table(self) -> NDArray[np.int16]:
        """Return 0 -> ignored, 1…7 -> 0…6."""
        return class_table({raw: raw - 1 for raw in range(1, len(CLASSES) + 1)}, ignored=(0,))

    def contents(self) -> dict[str, list[Pair]]:
        """Return Train and Val with their masks."""
        return {
            split: [
                self.pair(image, self.folder / folder / scene / "masks_png" / image.name, scene)
                for scene in ("Rural", "Urban")
                for image in self.images(folder, scene, "images_png")
            ]
            for split, folder in (("train", "Train"), ("test", "Val"))
        }
