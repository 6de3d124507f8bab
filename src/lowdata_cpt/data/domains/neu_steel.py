"""NEU surface defects of hot-rolled steel strip."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from lowdata_cpt.data.layouts.classification import ClassifiedFiles, Labelled
from lowdata_cpt.data.layouts.folders import DatasetCard, images_in

CLASSES = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")
PREFIXES = ("Cr", "In", "Pa", "PS", "RS", "Sc")
"""File name prefixes of the classification release, in the order of `CLASSES`."""


class NEUSteel(ClassifiedFiles):
    """NEU surface defects, 6 classes."""

    label: ClassVar[str] = "NEU steel"
    kind: Literal["neu_steel"] = "neu_steel"

    dataset: ClassVar[DatasetCard] = DatasetCard(
        title="NEU surface defects",
        images=(1800,),
        source='Song and Yan, "A noise robust method based on completed local binary patterns for hot-rolled steel '
        'strip surface defects", Applied Surface Science 2013; 300 grey images of 200×200 pixels a class.',
        licence="Not stated; research use.",
        how_to_get="download the NEU surface defect database from the page of Kechen Song (Northeastern University) "
        "and put its images (Cr_1.bmp … or crazing_1.jpg …) into that folder, or sort them into the class folders "
        + ", ".join(CLASSES)
        + ", optionally below train/ and test/",
        split="As given by train/ and test/ (val is a seeded part of train); otherwise, or with "
        "`split: seeded`, cut by seed from all 1,800, balanced over classes. No split is published with the images.",
        labels="6 classes.",
        limits="Nearly saturated by any pretrained backbone with all labels.",
    )

    def contents(self) -> Labelled:
        """Return the images of whichever of the three layouts is there."""
        base = self.need()
        if (base / "train").is_dir():
            splits = {split: self.class_folders(self.need(split), CLASSES) for split in ("train", "test")}
        elif any((base / name).is_dir() for name in CLASSES):
            splits = {"": self.class_folders(base, CLASSES)}
        else:
            splits = {"": [(path, self._by_name(path)) for path in images_in(base).images]}
            missing = set(range(len(CLASSES))) - {label for _, label in splits[""]}
            if missing:
                self.wrong_layout(f"{base} has no images of {CLASSES[min(missing)]}")
        return Labelled(CLASSES, splits)

    def _by_name(self, path: Path) -> int:
        prefix = path.stem.rpartition("_")[0]
        for names in (PREFIXES, CLASSES):
            if prefix in names:
                return names.index(prefix)
        self.wrong_layout(f"{path} is named after no class")
