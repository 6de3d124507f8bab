"""Shared by the segmentation domains whose images and masks are files of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.data.decode import decode_masked
from lowdata_cpt.data.layouts.folders import FolderDomain, images_in
from lowdata_cpt.data.store import Task, TaskInfo
from lowdata_cpt.data.writer import Item, write_splits


class Pair(NamedTuple):
    """An image with its mask; `stratum` is what draws are balanced over."""

    image: Path
    mask: Path
    stratum: str = ""


class MaskedFiles(FolderDomain):
    """A domain of image files with one mask file each."""

    labelled: ClassVar[tuple[Task, ...]] = ("segmentation",)

    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Return the class names in id order."""

    @abstractmethod
    def table(self) -> NDArray[np.int16]:
        """Return the table from the masks' values to class ids (`decode.class_table`)."""

    @abstractmethod
    def contents(self) -> dict[str, list[Pair]]:
        """Return train and test, and val where the data set has it beside them.

        Raises:
            UserError: wrong layout.
        """

    def lists(self) -> tuple[Path, ...]:
        """Return other files that say which image or value is what."""
        return ()

    def sources(self) -> Iterable[Path]:
        """Return all images, masks and lists."""
        pairs = [pair for found in self.contents().values() for pair in found]
        return [*self.lists(), *(path for pair in pairs for path in (pair.image, pair.mask))]

    def build(self, target: Path) -> None:
        """Decode the central squares of images and masks."""
        table = self.table()
        items = {
            split: [
                Item(
                    self.name_of(pair.image),
                    partial(decode_masked, pair.image, pair.mask, self.resolution, table),
                    pair.stratum,
                )
                for pair in pairs
            ]
            for split, pairs in self.contents().items()
        }
        tasks: dict[Task, TaskInfo] = {"segmentation": TaskInfo(sets={}, classes=self.classes())}
        with self.writer(target) as writer:
            write_splits(writer, self._kind, self.arrange(items), tasks)

    def images(self, *parts: str) -> list[Path]:
        """Return the images of a folder.

        Raises:
            UserError: it is missing or has none.
        """
        folder = self.need(*parts)
        found = images_in(folder).images
        if not found:
            self.wrong_layout(f"{folder} has no images")
        return found

    def pair(self, image: Path, mask: Path, stratum: str = "") -> Pair:
        """Return the pair.

        Raises:
            UserError: the mask is missing.
        """
        if not mask.is_file():
            self.wrong_layout(f"{mask} is missing, the mask of {image.name}")
        return Pair(image, mask, stratum)
