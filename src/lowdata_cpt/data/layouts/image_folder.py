"""A folder of the user's own images, with optional class folders and optional train/val/test folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import sha256_bytes
from lowdata_cpt.data.decode import MAX_PIXELS, decode_file
from lowdata_cpt.data.layouts.folders import DatasetCard, FolderDomain, images_in, subfolders
from lowdata_cpt.data.raw import UNREADABLE, file_hashes, printable
from lowdata_cpt.data.store import SPLITS, ImageSet, Task, TaskInfo
from lowdata_cpt.data.writer import PAGES, Item, Splits, StoreWriter, write_splits

SPLIT_OF = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Name of a folder, in lower case -> the split that it is."""

FEW_LEVELS = 16
"""A folder whose 16-bit files decode to fewer grey levels than that is refused: its images would be nearly black."""

OTHER, OUTSIDE = "no image file name", "outside the split folders"
EMPTY = sha256_bytes(b"")


class _Layout(NamedTuple):
    """Images of each split folder ("" where there are none) as (path, class name or ""); what else is there.

    Attributes:
        notes: files and folders that are not read, with the reason.
    """

    splits: dict[str, list[tuple[Path, str]]]
    notes: list[tuple[Path, str]]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({name for images in self.splits.values() for _, name in images} - {""}))


class ImageFolder(FolderDomain):
    """Any folder of images."""

    label: ClassVar[str] = "Images"
    kind: Literal["imagefolder"] = "imagefolder"
    root: str = Field(
        description="Folder of images; relative paths are below $LOWDATA_DATA (default ./data), ~ and $NAME are "
        "expanded.",
        min_length=1,
    )
    labels: Literal["folders", "none"] = Field(
        default="folders", description="folders: subfolders are classes; none: they are not, all images are the pool."
    )
    bits: int | None = Field(
        default=None,
        ge=8,
        le=16,
        description="Bits that 16-bit grey files use, e.g. 12 for many microscopes and X-ray detectors; null: 16, and "
        f"files that would decode to fewer than {FEW_LEVELS} grey levels are refused.",
    )
    max_pixels: int = Field(
        default=MAX_PIXELS, ge=1, description="Pixels of the largest picture to decode; larger ones count as damaged."
    )

    dataset: ClassVar[DatasetCard] = DatasetCard(
        title="your own images",
        source="Yours. Every file whose name ends like a picture format that Pillow reads is an image; other files are "
        "listed in quarantine.csv. Ids are paths below `root`; bytes that are no UTF-8 become \\xNN.",
        licence="Yours.",
        how_to_get="put images right into the folder (a pool), or into one subfolder a class, or into train/ and test/ "
        "(and val/) with either of these inside",
        split="With class folders only: seeded, balanced over classes (`test_fraction` and `val_fraction`, 0.2 each). "
        "With train/ and test/: val is val/, or a seeded 0.2 of train. The pool is the train images. Without labels "
        "the pool is train/, or everything. Case does not matter, and training, valid, validation, dev and testing "
        "stand for train, val and test.",
        labels="Two or more subfolders with images are classes (`labels: none` switches that off).",
        limits="Exact copies are left out and listed: all but one within a class, all of them where classes differ, "
        "and "
        "in train those of val and test images. Near-duplicates (video frames, crops of one picture) are not found: "
        "put "
        "them on one side yourself with train/ and test/. Of a file with several pages the first is used, and listed.",
        pixels="EXIF orientation applied, RGB (grey repeated, transparency on white, 16 bits scaled by 1/257 or by "
        "`bits`), central square, antialiased bicubic.",
    )

    def tasks(self) -> tuple[Task, ...]:
        """Return classification where the folder has class folders."""
        return ("classification",) if self._layout().classes else ()

    def sources(self) -> Iterable[Path]:
        """Return all images."""
        return [path for images in self._layout().splits.values() for path, _ in images]

    def remarks(self) -> list[str]:
        """Return what is not read, by kind, and the classes that a split lacks."""
        if self.absent():
            return []
        layout, said = self._layout(), []
        kinds = Counter(path.suffix.lower() or "no ending" for path, reason in layout.notes if reason == OTHER)
        if kinds:
            listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda kind: -kind[1]))
            said.append(f"{self.folder}: {sum(kinds.values())} files are not read as images: {listed}")
        rest = Counter(reason for _, reason in layout.notes if reason != OTHER)
        said += [f"{self.folder}: not read: {count} × {reason}" for reason, count in rest.items()]
        if layout.classes:
            splits = self._splits(layout, {})
            for split in SPLITS:
                held = {item.stratum for item in getattr(splits, split)}
                lacking = [name for name in layout.classes if name not in held]
                if lacking:
                    counts = Counter(name for images in layout.splits.values() for _, name in images)
                    named = ", ".join(f"{name} ({counts[name]} images in all)" for name in lacking[:5])
                    more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
                    said.append(f"{self.folder}: no image in {split} of {len(lacking)} classes: {named}{more}")
        return [printable(line) for line in said]

    def _layout(self) -> _Layout:
        base = self.folder
        if not base.is_dir():
            self.wrong_layout(f"{base} is no folder")
        inside: dict[str, Path] = {}
        for path in subfolders(base):
            name = SPLIT_OF.get(path.name.lower(), "")
            if name in inside:
                self.wrong_layout(f"{inside[name].name}/ and {path.name}/ in {base} are both a {name} split")
            if name:
                inside[name] = path
        if inside and "train" not in inside:
            self.wrong_layout(f"{base} has {sorted(path.name for path in inside.values())} but no train/")
        places: dict[str, Path] = {split: inside[split] for split in SPLITS if split in inside} or {"": base}
        found = {split: images_in(folder) for split, folder in places.items()}
        split, folder = next(iter(places.items()))
        within = {path.relative_to(folder).parts[0] for path in found[split].images if path.parent != folder}
        classed = self.labels == "folders" and len(within) > 1
        splits = {split: self._classed(folder, found[split].images, classed) for split, folder in places.items()}
        notes = [(path, OTHER) for files in found.values() for path in files.others]
        notes += [note for files in found.values() for note in files.unread]
        if inside:
            below, whole = tuple(inside.values()), images_in(base)
            outside = [path for path in (*whole.images, *whole.others) if not any(map(path.is_relative_to, below))]
            notes += [(path, OUTSIDE) for path in outside]
        self._check(_Layout(splits, notes), inside)
        return _Layout(splits, notes)

    def _check(self, layout: _Layout, inside: Mapping[str, Path]) -> None:
        """Hold the layout to having images to train on, the same classes in all splits, and a test set of them."""
        images = layout.splits.get("train", layout.splits.get("", []))
        if not images:
            self.wrong_layout(f"{self.folder} has no images, only {len(layout.notes)} other files")
        for split, folder in inside.items():
            unknown = {name for _, name in layout.splits[split]} - {name for _, name in images}
            if unknown:
                self.wrong_layout(f"{folder} has the classes {sorted(unknown)[:3]}, which train/ has not")
        if inside and layout.classes and "test" not in inside:
            self.wrong_layout(f"{self.folder} has class folders in train/ but no test/ (or set `labels: none`)")

    def _classed(self, folder: Path, images: list[Path], classed: bool) -> list[tuple[Path, str]]:
        """Return the images of a split with their classes, "" for none."""
        if not classed:
            return [(path, "") for path in images]
        loose = [path for path in images if path.parent == folder]
        if loose:
            self.wrong_layout(
                f"{folder} has class folders and {len(loose)} loose images ({loose[0].name}); "
                "sort them in, or set `labels: none`"
            )
        return [(path, printable(path.relative_to(folder).parts[0])) for path in images]

    def _copies(self, layout: _Layout) -> dict[Path, str]:
        """Return the images to leave out as exact copies of others of their split, with the reason."""
        digests, copies = file_hashes(self.folder, self.sources()), dict[Path, str]()
        for images in layout.splits.values():
            groups: dict[str, list[tuple[Path, str]]] = {}
            for path, name in images:
                groups.setdefault(digests[path], []).append((path, name))
            for digest, group in groups.items():
                if digest == EMPTY or digest.startswith(UNREADABLE) or len(group) == 1:
                    continue  # decoding says what is wrong with the former
                (first, label), *rest = group
                other = next((path for path, name in rest if name != label), None)
                if other is None:
                    copies |= {path: f"left out: the same bytes as {self.name_of(first)}" for path, _ in rest}
                    continue
                for path, name in group:
                    twin = next(found for found, another in group if another != name)
                    copies[path] = f"left out: the same bytes as {self.name_of(twin)}, which has another class"
        return copies

    def _items(self, layout: _Layout, split: str, copies: Mapping[Path, str]) -> list[Item]:
        number = {name: label for label, name in enumerate(layout.classes)}
        options = {"bits": self.bits or 16, "max_pixels": self.max_pixels}
        return [
            Item(
                self.name_of(path),
                partial(decode_file, path, self.resolution, label=number.get(name), **options),
                name,
            )
            for path, name in layout.splits.get(split, [])
            if path not in copies
        ]

    def _splits(self, layout: _Layout, copies: Mapping[Path, str]) -> Splits:
        return self.arrange({split: self._items(layout, split, copies) for split in layout.splits})

    def build(self, target: Path) -> None:
        """Decode all images to their central squares."""
        layout = self._layout()
        copies = self._copies(layout)
        for line in self.remarks():
            print(line)
        with self.writer(target) as writer:
            for path, reason in (*layout.notes, *sorted(copies.items())):
                writer.note(self.name_of(path), reason)
            if layout.classes:
                tasks: dict[Task, TaskInfo] = {"classification": TaskInfo(sets={}, classes=layout.classes)}
                write_splits(writer, self.kind, self._splits(layout, copies), tasks)
            else:
                split = "train" if "train" in layout.splits else ""
                writer.add("pool", self.limited("train", self._items(layout, split, copies)), ())
                writer.finish(self.kind, "pool", {"pool": ImageSet(array="pool")}, {})
        self._report(writer)

    def _report(self, writer: StoreWriter) -> None:
        """Print what was left out or noticed; refuse 16-bit files that use a small part of their range."""
        pages = sum(reason.endswith(PAGES) for _, reason in writer.notes)
        copies = sum(reason.startswith("left out") for _, reason in writer.notes)
        for count, what in ((copies, "exact copies left out"), (pages, "files with several pages: the first is used")):
            if count:
                print(f"{printable(self.folder)}: {count} {what}; quarantine.csv lists them")
        top = writer.top
        if top is None or self.bits is not None or top > 32767:
            return
        found = f"the 16-bit files of {printable(self.folder)} have values up to {top} of 65535"
        hint = f"`bits: {max(8, top.bit_length())}` scales them to the whole range"
        if top < FEW_LEVELS * 257:
            raise UserError(
                f"domain {self.kind!r}: {found}, at most {round(top / 257) + 1} grey levels of 256; {hint} (`bits: 16` "
                "keeps them as they are)"
            )
        print(f"{found}; {hint}")
