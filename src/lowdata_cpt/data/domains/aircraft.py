"""FGVC-Aircraft: aeroplane variants."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.layouts.classification import ClassifiedFiles, Labelled
from lowdata_cpt.data.layouts.folders import DatasetCard, lines_of

FILES_OF_LEVEL = {"variant": "variants", "family": "families", "manufacturer": "manufacturers"}


class Aircraft(ClassifiedFiles):
    """FGVC-Aircraft, release 2013b."""

    label: ClassVar[str] = "FGVC-Aircraft"
    kind: Literal["aircraft"] = "aircraft"
    level: Literal["variant", "family", "manufacturer"] = Field(
        default="variant", description="100 variants, 70 families or 30 manufacturers."
    )

    cut_bottom: ClassVar[int] = 20
    dataset: ClassVar[DatasetCard] = DatasetCard(
        title="FGVC-Aircraft 2013b",
        images=(3334, 3333, 3333),
        source='Maji et al., "Fine-Grained Visual Classification of Aircraft", 2013; 10,000 photographs.',
        licence="Images belong to their photographers; non-commercial research only (the authors' page).",
        how_to_get="download fgvc-aircraft-2013b.tar.gz from the FGVC-Aircraft page of the Visual Geometry Group, "
        "Oxford, and unpack it so that data/ lies in that folder (or in fgvc-aircraft-2013b/ inside it)",
        split="Official: 3,334 training (the pool), 3,333 validation and 3,333 test images.",
        labels="100 variants (or 70 families, or 30 manufacturers: `level`), in the order of data/variants.txt.",
        limits="Aeroplanes of one airframe photographed twice can be on both sides of the split.",
        pixels="The bottom 20 rows, a copyright banner, are cut off (the authors ask for that); then the central "
        "square, antialiased bicubic.",
    )

    def contents(self) -> Labelled:
        """Return the images that data/images_<level>_<split>.txt list."""
        inside = self.folder / "fgvc-aircraft-2013b"
        data = self.name_of(inside if inside.is_dir() else self.folder)
        names = self.need(data, "data", f"{FILES_OF_LEVEL[self.level]}.txt")
        images = self.need(data, "data", "images")
        classes = tuple(lines_of(names))
        splits: dict[str, list[tuple[Path, int]]] = {}
        lists = [names]
        for split in ("train", "val", "test"):
            path = self.need(data, "data", f"images_{self.level}_{split}.txt")
            lists.append(path)
            splits[split] = []
            for line in lines_of(path):
                image, _, name = line.partition(" ")
                if name not in classes:
                    raise UserError(f"{path}: class {name!r} of image {image} is not in {names.name}")
                splits[split].append((images / f"{image}.jpg", classes.index(name)))
        return Labelled(classes, splits, tuple(lists))
