"""A folder of the user's own images, with optional class folders and optional train/val/test folders."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from lowdata_cpt.data.decode import decode_file
from lowdata_cpt.data.layouts.folders import DatasetCard, FolderDomain, images_in, subfolders
from lowdata_cpt.data.store import SPLITS, ImageSet, Task, TaskInfo
from lowdata_cpt.data.writer import Item, write_splits


class _Layout(NamedTuple):
    """Images of each split folder ("" where there are none) as (path, class name or "")."""

    splits: dict[str, list[tuple[Path, str]]]
    others: list[Path]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({name for images in self.splits.values() for _, name in images} - {""}))


class ImageFolder(FolderDomain):
    """Any folder of images."""

    label: ClassVar[str] = "Images"
    kind: Literal["imagefolder"] = "imagefolder"
    root: str = Field(
        description="Folder of images; relative paths are below $LOWDATA_DATA (default ./data).", min_length=1
    )
    labels: Literal["folders", "none"] = Field(
        default="folders", description="folders: subfolders are classes; none: they are not, all images are the pool."
    )

    dataset: ClassVar[DatasetCard] = DatasetCard(
        title="your own images",
        source="Yours. Every file whose name ends like an image format that Pillow reads is an image; other files are "
        "listed in quarantine.csv. Ids are paths below `root`.",
        licence="Yours.",
        how_to_get="put images right into the folder (a pool), or into one subfolder a class, or into train/ and test/ "
        "(and val/) with either of these inside",
        split="With class folders only: seeded, balanced over classes (`test_fraction` and `val_fraction`, 0.2 each). "
        "With train/ and test/: val is val/, or a seeded 0.2 of train. The pool is the train "
        "images. Without labels the pool is train/, or everything.",
        labels="Two or more subfolders with images are classes (`labels: none` switches that off).",
        limits="A training image with the exact bytes of a test image is left out and listed. Near-duplicates (video "
        "frames, crops of one picture) are not found: put them on one side yourself with train/ and test/.",
        pixels="EXIF orientation applied, RGB (grey repeated, transparency on white, 16 bits scaled by 1/257), central "
        "square, antialiased bicubic.",
    )

    def tasks(self) -> tuple[Task, ...]:
        """Return classification where the folder has class folders."""
        return ("classification",) if self._layout().classes else ()

    def sources(self) -> Iterable[Path]:
        """Return all images."""
        return [path for images in self._layout().splits.values() for path, _ in images]

    def _layout(self) -> _Layout:
        base = self.folder
        if not base.is_dir():
            self.wrong_layout(f"{base} is no folder")
        inside = {path.name for path in subfolders(base)} & set(SPLITS)
        if inside and "train" not in inside:
            self.wrong_layout(f"{base} has {sorted(inside)} but no train/")
        splits: dict[str, list[tuple[Path, str]]] = {}
        others: list[Path] = []
        classed = self.labels == "folders" and len(_first_parts(base / ("train" if inside else ""))) > 1
        for split in SPLITS if inside else ("",):
            if split in inside or not split:
                splits[split], left = self._images(base / split, classed)
                others += left
        if inside:  # what lies beside the split folders is in no split
            others += [path for path in images_in(base)[0] if path.relative_to(base).parts[0] not in inside]
        layout = _Layout(splits, others)
        if not layout.splits.get("train", layout.splits.get("")):
            self.wrong_layout(f"{base} has no images, only {len(others)} other files")
        for split, images in layout.splits.items():
            unknown = {name for _, name in images} - {name for _, name in layout.splits.get("train", images)}
            if unknown:
                self.wrong_layout(f"{base / split} has the classes {sorted(unknown)[:3]}, which train/ has not")
        if inside and layout.classes and "test" not in inside:
            self.wrong_layout(f"{base} has class folders in train/ but no test/ (or set `labels: none`)")
        return layout

    def _images(self, folder: Path, classed: bool) -> tuple[list[tuple[Path, str]], list[Path]]:
        """Return the images of a split with their classes, and the files that are not named like images."""
        images, others = images_in(folder)
        if not classed:
            return [(path, "") for path in images], others
        within = [path.relative_to(folder).parts for path in images]
        loose = [path for path, parts in zip(images, within, strict=True) if len(parts) == 1]
        if loose:
            self.wrong_layout(
                f"{folder} has class folders and {len(loose)} loose images ({loose[0].name}); "
                "sort them in, or set `labels: none`"
            )
        return [(path, parts[0]) for path, parts in zip(images, within, strict=True)], others

    def build(self, target: Path) -> None:
        """Decode all images to their central squares."""
        layout = self._layout()
        classes = layout.classes

        def items(split: str) -> list[Item]:
            return [
                Item(
                    self.name_of(path),
                    partial(decode_file, path, self.resolution, label=classes.index(name) if name else None),
                    name,
                )
                for path, name in layout.splits.get(split, [])
            ]

        with self.writer(target) as writer:
            for path in layout.others:
                writer.note(self.name_of(path), "no image file name, or outside the split folders")
            if self.tasks():
                splits = self.arrange({split: items(split) for split in layout.splits})
                tasks: dict[Task, TaskInfo] = {"classification": TaskInfo(sets={}, classes=classes)}
                write_splits(writer, self.kind, splits, tasks)
            else:
                writer.add("pool", self.limited("train", items("train") or items("")), ())
                writer.finish(self.kind, "pool", {"pool": ImageSet(array="pool")}, {})


def _first_parts(folder: Path) -> set[str]:
    """Return the names of the subfolders that hold images in any depth."""
    parts = (path.relative_to(folder).parts for path in images_in(folder)[0])
    return {found[0] for found in parts if len(found) > 1}
