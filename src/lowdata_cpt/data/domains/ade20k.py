"""ADE20K in its scene parsing benchmark form (SceneParse150)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.data.decode import class_table
from lowdata_cpt.data.layouts.folders import DatasetCard, lines_of
from lowdata_cpt.data.layouts.masked import MaskedFiles, Pair

CLASSES = 150


class ADE20K(MaskedFiles):
    """ADE20K, 150 classes."""

    label: ClassVar[str] = "ADE20K"
    kind: Literal["ade20k"] = "ade20k"

    segmentation_classes: ClassVar[int] = CLASSES
    dataset: ClassVar[DatasetCard] = DatasetCard(
        title="ADE20K scene parsing (SceneParse150)",
        images=(20_210, 2000),
        source='Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017: scenes of all kinds.',
        licence="BSD-3-Clause for the annotations; the images belong to their owners, research use (the authors' "
        "terms).",
        how_to_get="download ADEChallengeData2016.zip from the MIT Scene Parsing Benchmark page and unpack it so that "
        "images/{training,validation}, annotations/{training,validation} and objectInfo150.txt lie in that folder "
        "(or in ADEChallengeData2016/ inside it)",
        split="Official: 20,210 training images (val is a seeded part of them, the pool the rest) and 2,000 "
        "validation images, "
        "which are the test set here, since the test annotations are not public. Strata: sceneCategories.txt where "
        "present.",
        labels="150 classes; 0 in the masks (other or unlabelled) is ignored (255), 1…150 become 0…149.",
        limits="mIoU on central squares at the store's resolution is not the sliding-window figure of papers.",
    )

    def _base(self) -> Path:
        inside = self.folder / "ADEChallengeData2016"
        return inside if inside.is_dir() else self.folder

    def lists(self) -> tuple[Path, ...]:
        """Return the class names, and the scene types where there."""
        scenes = self._base() / "sceneCategories.txt"
        names = self.need(self.name_of(self._base() / "objectInfo150.txt"))
        return (names, scenes) if scenes.exists() else (names,)

    def classes(self) -> tuple[str, ...]:
        """Return the last column of objectInfo150.txt."""
        path = self.lists()[0]
        rows = [line.split("\t") for line in lines_of(path)[1:]]
        if [row[0] for row in rows] != [str(number) for number in range(1, CLASSES + 1)]:
            self.wrong_layout(f"{path} should have a header and rows 1 to {CLASSES}, tab-separated")
        return tuple(row[-1].strip() for row in rows)

    def table(self) -> NDArray[np.int16]:
        """Return 0 -> ignored, 1…150 -> 0…149."""
        return class_table({raw: raw - 1 for raw in range(1, CLASSES + 1)}, ignored=(0,))

    def contents(self) -> dict[str, list[Pair]]:
        """Return training and validation images with their masks."""
        scenes = {
            words[0]: words[-1]
            for path in self.lists()[1:]
            for line in lines_of(path)
            if len(words := line.split()) > 1
        }
        base = self.name_of(self._base())
        return {
            split: [
                self.pair(
                    image,
                    self._base() / "annotations" / folder / f"{image.stem}.png",
                    scenes.get(image.stem, ""),
                )
                for image in self.images(base, "images", folder)
            ]
            for split, folder in (("train", "training"), ("test", "validation"))
        }
