"""Food-101: dishes."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json
from lowdata_cpt.data.layouts.classification import ClassifiedFiles, Labelled
from lowdata_cpt.data.layouts.folders import DatasetCard


class Food101(ClassifiedFiles):
    """Food-101, 101 classes."""

    label: ClassVar[str] = "Food101"
    kind: Literal["food101"] = "food101"

    dataset: ClassVar[DatasetCard] = DatasetCard(
        title="Food-101",
        images=(75_750, 25_250),
        source='Bossard, Guillaumin and Van Gool, "Food-101: Mining Discriminative Components with Random Forests", '
        "ECCV "
        "2014; 1,000 images a class, up to 512 pixels.",
        licence="Images belong to their owners (Foodspotting); research use.",
        how_to_get="download food-101.tar.gz from the ETH Zürich Food-101 page and unpack it so that images/ and meta/ "
        "lie in that folder (or in food-101/ inside it)",
        split="Official: 750 training (val is a seeded part, the pool the rest) and 250 test images a class.",
        labels="101 classes, the keys of meta/train.json in alphabetical order.",
        limits="Training labels are noisy by design; test labels are clean.",
    )

    def contents(self) -> Labelled:
        """Return the images that meta/{train,test}.json list."""
        base = self.folder / "food-101" if (self.folder / "food-101").is_dir() else self.folder
        lists = tuple(self.need(self.name_of(base), "meta", f"{split}.json") for split in ("train", "test"))
        images = self.need(self.name_of(base), "images")
        listed = [read_json(path) for path in lists]
        for path, value in zip(lists, listed, strict=True):
            if not isinstance(value, dict) or not all(isinstance(names, list) for names in value.values()):
                raise UserError(f"{path}: expected a mapping of class names to image names")
        classes = tuple(sorted(listed[0]))
        if set(listed[1]) != set(classes):
            raise UserError(f"{lists[1]}: has other classes than {lists[0].name}")

        def files(value: dict[str, list[str]]) -> list[tuple[Path, int]]:
            return [(images / f"{name}.jpg", label) for label, key in enumerate(classes) for name in sorted(value[key])]

        return Labelled(classes, {"train": files(listed[0]), "test": files(listed[1])}, lists)
