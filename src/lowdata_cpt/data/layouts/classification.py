"""Shared by the classification domains whose images are single files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

from lowdata_cpt.data.decode import decode_file
from lowdata_cpt.data.layouts.folders import FolderDomain, images_in, subfolders
from lowdata_cpt.data.store import Task, TaskInfo
from lowdata_cpt.data.writer import Item, write_splits


class Labelled(NamedTuple):
    """What a classification data set holds.

    Attributes:
        classes: names in id order.
        splits: split ("" where the data set has none) -> files with their class ids.
        lists: other files that say which image is what.
    """

    classes: tuple[str, ...]
    splits: dict[str, list[tuple[Path, int]]]
    lists: tuple[Path, ...] = ()


class ClassifiedFiles(FolderDomain):
    """A domain of image files with one class each."""

    labelled: ClassVar[tuple[Task, ...]] = ("classification",)
    cut_bottom: ClassVar[int] = 0
    """Rows of pixels to drop from the bottom of every image."""

    @abstractmethod
    def contents(self) -> Labelled:
        """List the images.

        Raises:
            UserError: wrong layout.
        """

    def sources(self) -> Iterable[Path]:
        """Return all images and lists."""
        found = self.contents()
        return [*found.lists, *(path for files in found.splits.values() for path, _ in files)]

    def build(self, target: Path) -> None:
        """Decode all images; strata are the classes."""
        found = self.contents()

        def item(path: Path, label: int) -> Item:
            decode = partial(decode_file, path, self.resolution, label=label, cut_bottom=self.cut_bottom)
            return Item(self.name_of(path), decode, found.classes[label])

        items = {split: [item(*file) for file in files] for split, files in found.splits.items()}
        tasks: dict[Task, TaskInfo] = {"classification": TaskInfo(sets={}, classes=found.classes)}
        with self.writer(target) as writer:
            write_splits(writer, self._kind, self.arrange(items), tasks)

    def class_folders(self, folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
        """Return the images of a folder that has exactly the subfolders `classes`.

        Raises:
            UserError: a class folder is missing, empty or unknown.
        """
        names = [path.name for path in subfolders(folder)] if folder.is_dir() else []
        if set(names) != set(classes):
            odd = sorted(set(names) ^ set(classes))
            self.wrong_layout(f"{folder} should have the {len(classes)} class folders, differs in {', '.join(odd[:3])}")
        files: list[tuple[Path, int]] = []
        for label, name in enumerate(classes):
            images = images_in(folder / name).images
            if not images:
                self.wrong_layout(f"{folder / name} has no images")
            files += [(path, label) for path in images]
        return files
