"""Cell nuclei in microscopy: 2018 Data Science Bowl, stage 1 training images."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import sha256_bytes
from lowdata_cpt.data.decode import (
    Sample,
    UndecodableError,
    read_bytes,
    read_ids,
    read_image,
    resize_image,
    resize_nearest,
    square_box,
)
from lowdata_cpt.data.layouts.folders import DatasetCard, FolderDomain, images_in, subfolders
from lowdata_cpt.data.store import Task, TaskInfo
from lowdata_cpt.data.writer import Item, write_splits

FOLDER = "stage1_train"


class Nuclei(FolderDomain):
    """DSB 2018 nuclei, foreground and background."""

    label: ClassVar[str] = "Nuclei"
    kind: Literal["nuclei"] = "nuclei"

    labelled: ClassVar[tuple[Task, ...]] = ("segmentation",)
    segmentation_classes: ClassVar[int] = 2
    dataset: ClassVar[DatasetCard] = DatasetCard(
        title="nuclei, 2018 Data Science Bowl stage 1",
        images=(670,),
        source='Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl", Nature '
        "Methods 2019; BBBC038 of the Broad Bioimage Benchmark Collection.",
        licence="CC0.",
        how_to_get=f"download stage1_train.zip of BBBC038 from the Broad Bioimage Benchmark Collection and unpack it "
        f"so that {FOLDER}/<id>/images/<id>.png and {FOLDER}/<id>/masks/*.png lie in that folder",
        split="None published with labels here: seeded (`test_fraction`, `val_fraction`).",
        labels="2 classes: background and nucleus (the union of the instance masks). Nothing is ignored.",
        limits="Images of very different microscopes and sizes (256 to 1,024 pixels); some masks of the first release "
        "are wrong (a corrected copy exists); crops of one slide can be on both sides of the split.",
    )

    def _images(self) -> list[tuple[Path, list[Path]]]:
        base = self.need(FOLDER)
        found = []
        for folder in subfolders(base):
            image = folder / "images" / f"{folder.name}.png"
            masks = images_in(folder / "masks").images if (folder / "masks").is_dir() else []
            if not image.is_file() or not masks:
                self.wrong_layout(f"{folder} should have images/{folder.name}.png and masks/*.png")
            found.append((image, masks))
        if not found:
            self.wrong_layout(f"{base} is empty")
        return found

    def sources(self) -> Iterable[Path]:
        """Return all images and masks."""
        return [path for image, masks in self._images() for path in (image, *masks)]

    def build(self, target: Path) -> None:
        """Decode the central squares of images and united masks."""
        items = [Item(image.stem, partial(_decode, image, masks, self.resolution)) for image, masks in self._images()]
        tasks: dict[Task, TaskInfo] = {"segmentation": TaskInfo(sets={}, classes=("background", "nucleus"))}
        with self.writer(target) as writer:
            write_splits(writer, self.kind, self.arrange({"": items}), tasks)


def _decode(image_path: Path, mask_paths: list[Path], side: int) -> Sample:
    data = read_bytes(image_path)
    image = read_image(data, orient=False)
    union = np.zeros((image.height, image.width), bool)
    for path in mask_paths:
        try:
            mask = read_ids(read_bytes(path))
        except UndecodableError as error:
            raise UndecodableError(f"its mask {path.name}: {error}") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        if mask.shape != union.shape:
            raise UserError(
                f"{path}: {mask.shape[1]}×{mask.shape[0]} pixels, expected {image.width}×{image.height} as its image"
            )
        union |= mask > 0
    box = square_box(*image.size)
    segmentation = resize_nearest(union.astype(np.uint8), box, side)
    return Sample(resize_image(image, box, side), sha256_bytes(data), segmentation=segmentation)
