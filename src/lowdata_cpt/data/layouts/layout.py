"""How a folder of the user's own images is arranged: what its folders are called, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

SPLIT_OF = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Name of a folder, in lower case -> the split that it is."""

IMAGES = "images"
MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "segmentation", "segmentations", "gt",
    "groundtruth", "ground_truth",
)  # fmt: skip
DEPTH_FOLDERS = ("depth", "depths")
LABEL_FOLDERS = frozenset((*MASK_FOLDERS, *DEPTH_FOLDERS))
"""What folders of label files are called, in lower case: their pictures are no images to train on."""


class Layout(NamedTuple):
    """Images of each split folder ("" where there are none) as (path, class name or ""); what else is there.

    Attributes:
        places: where the images of each split lie.
        notes: files and folders that are not read, with the reason.
        masks, depth: label files of the images.
        missing: images without a label that they should have, with the reason.
    """

    places: Mapping[str, Path]
    splits: dict[str, list[tuple[Path, str]]]
    notes: list[tuple[Path, str]]
    masks: Mapping[Path, Path] = MappingProxyType({})
    depth: Mapping[Path, Path] = MappingProxyType({})
    missing: Mapping[Path, str] = MappingProxyType({})

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, sorted."""
        return tuple(sorted({name for images in self.splits.values() for _, name in images} - {""}))


def label_folder(images: Iterable[Path], below: Path) -> str | None:
    """Return the folder of label files that some images lie in, as its path in `below`; None if none does."""
    for path in images:
        parts = path.relative_to(below).parts[:-1]
        for depth, part in enumerate(parts, 1):
            if part.lower() in LABEL_FOLDERS:
                return "/".join(parts[:depth])
    return None


def fault(layout: Layout, inside: Mapping[str, Path], dense: bool, labels: str) -> str | None:
    """Return what is wrong with a layout, None if nothing is.

    It has to have images to train on, none of them a label file, the same classes in all splits, and a test set of
    what is labelled.

    Args:
        layout: of the folder.
        inside: its split folders.
        dense: whether masks or depth maps are configured.
        labels: where classes come from: folders, none, or a CSV file.
    """
    images = layout.splits.get("train", layout.splits.get("", []))
    if not images:
        return f"no images, only {len(layout.notes)} other files"
    if labels == "folders":  # `none` takes every picture, and pictures without a row of a CSV file are left out
        for split, place in layout.places.items():
            if found := label_folder((path for path, _ in layout.splits[split]), place):
                return (
                    f"{found}/ is called like a folder of label files, and its pictures would be images to train on; "
                    "set `masks` or `depth`, call it otherwise, or set `labels: none` to train on every picture"
                )
    if labels.endswith(".csv") and len(layout.classes) == 1:
        return f"{labels} has one class, {layout.classes[0]!r}; expected two or more, or `labels: none`"
    for split, folder in inside.items():
        unknown = {name for _, name in layout.splits[split]} - {name for _, name in images} - {""}
        if unknown:
            return f"{folder.name}/ has the classes {sorted(unknown)[:3]}, which train/ has not"
    if inside and (layout.classes or dense) and "test" not in inside:
        return "labelled images in train/ but no test/ (or set `labels: none`)"
    return None
