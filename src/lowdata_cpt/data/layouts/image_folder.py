"""A folder of the user's own images, with optional classes, masks, depth maps and train/val/test folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import write_text
from lowdata_cpt.data.decode import MAX_PIXELS
from lowdata_cpt.data.layouts import coco
from lowdata_cpt.data.layouts.copies import exact_copies
from lowdata_cpt.data.layouts.folders import DatasetCard, Files, FolderDomain, images_in, subfolders
from lowdata_cpt.data.layouts.grouping import Grouping, cut_groups
from lowdata_cpt.data.layouts.label_files import (
    Depth,
    LabelFiles,
    Labels,
    Masks,
    decode_with_labels,
    match,
)
from lowdata_cpt.data.layouts.layout import IMAGES, SPLIT_OF, Layout, fault
from lowdata_cpt.data.layouts.listing import CLASS, Listing
from lowdata_cpt.data.layouts.survey import depth_report, survey
from lowdata_cpt.data.raw import file_hashes, printable
from lowdata_cpt.data.store import GROUPS, SPLITS, ImageSet, Store, Task, TaskInfo
from lowdata_cpt.data.writer import PAGES, Item, Splits, StoreWriter, write_splits

FEW_LEVELS = 16
"""A folder whose 16-bit files decode to fewer grey levels than that is refused: its images would be nearly black."""

OTHER, OUTSIDE = "no image file name", "outside the split folders"
NO_IMAGE, NO_ROW = "a label file of no image", "a row of the CSV file of no image"

FOUND = "found.md"
"""What was found in masks and depth maps, in a store; the data card of a study ends with it."""

NO_LABELS = Labels(None, None, None)


class ImageFolder(FolderDomain):
    """Any folder of images."""

    label: ClassVar[str] = "Images"
    kind: Literal["imagefolder"] = "imagefolder"
    root: str = Field(
        description="Folder of images; relative paths are below $LOWDATA_DATA (default ./data), ~ and $NAME are "
        "expanded.",
        min_length=1,
    )
    labels: str = Field(
        default="folders",
        pattern=r"^(folders|none|[^/].*\.csv)$",
        description="folders: subfolders are classes; none: they are not; or a CSV file in the folder with the columns "
        "file,class.",
    )
    masks: Masks | None = Field(default=None, description="Class masks beside the images: segmentation.")
    depth: Depth | None = Field(default=None, description="Depth maps beside the images: depth.")
    group: Grouping | None = Field(
        default=None, description="Which images stay on one side of a split: frames of one video, crops of one picture."
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
        images=(),
        source="Yours. Every file whose name ends like a picture format that Pillow reads is an image; other files are "
        "listed in quarantine.csv. Ids are paths below `root`; bytes that are no UTF-8 become \\xNN.",
        licence="Yours.",
        how_to_get="put images right into the folder (a pool), or into one subfolder a class, or into train/ and test/ "
        "(and val/) with either of these inside; label files of pixels go beside images/ into masks/ and depth/",
        split="With class folders only: seeded, balanced over classes (`test_fraction` and `val_fraction`, 0.2 each). "
        "With train/ and test/: val is val/, or a seeded 0.2 of train. The pool is the train images. Without labels "
        "the pool is train/, or everything. Case does not matter, and training, valid, validation, dev and testing "
        "stand for train, val and test.",
        labels="Two or more subfolders with images are classes (`labels: none` switches that off), or a CSV file says "
        "them. `masks` and `depth` name folders with one file an image; masks, depth and classes may go together. See "
        "docs/data/own-images.md.",
        limits="Exact copies are left out and listed: all but one within a class, all of them where classes differ, "
        "and in train those of val and test images. Near-duplicates (video frames, crops of one picture) are not "
        "found: say with `group` which images belong together, or put them on one side yourself. Of a file with "
        "several pages the first is used, and listed.",
        pixels="EXIF orientation applied, RGB (grey repeated, transparency on white, 16 bits scaled by 1/257 or by "
        "`bits`), central square, antialiased bicubic; label files turned alike, nearest-neighbour.",
    )

    @model_validator(mode="after")
    def _columns_need_a_file(self) -> Self:
        if self.group and self.group.column and not self._csv:
            raise ValueError(f"group.column is {self.group.column!r}, but labels is no CSV file that could have it")
        return self

    @property
    def labelled(self) -> tuple[Task, ...]:  # type: ignore[override]
        """Tasks that the configuration alone promises labels for; `tasks` looks at the folder too."""
        promised: tuple[tuple[Task, LabelFiles | None], ...] = (("segmentation", self.masks), ("depth", self.depth))
        return tuple(task for task, labels in promised if labels)

    @property
    def _csv(self) -> bool:
        return self.labels.endswith(".csv")

    def _dense(self) -> list[LabelFiles]:
        return [labels for labels in (self.masks, self.depth) if labels]

    def tasks(self) -> tuple[Task, ...]:
        """Return classification where the folder has classes, segmentation and depth where they are configured."""
        return ("classification", *self.labelled) if self._layout().classes else self.labelled

    def sources(self) -> Iterable[Path]:
        """Return all images and label files."""
        layout = self._layout()
        images = [path for found in layout.splits.values() for path, _ in found]
        listing = [self.folder / self.labels] if self._csv else []
        masks = dict.fromkeys(coco.file_of(path) or path for path in layout.masks.values())
        return [*images, *masks, *layout.depth.values(), *listing]

    def count(self) -> int | None:
        """Return the number of images in the folder, None where it is not there."""
        return None if self.absent() else sum(map(len, self._layout().splits.values()))

    def pool_size(self) -> int:
        """Return how many images may be trained on: those that are left when the rest is split off.

        Nothing is read but names, so that damaged files and exact copies still count.

        Raises:
            UserError: the folder has another layout, or the split leaves none.
        """
        layout = self._layout()
        if layout.classes or self._dense():
            return len(list(self._splits(layout, {}).train))
        return len(
            self.limited("train", self._items(layout, "train" if "train" in layout.splits else "", {}, NO_LABELS))
        )

    def groups(self, store: Store, task: Task) -> NDArray[np.int32] | None:
        """Return the group of each test image, as `group` says."""
        return store.groups(store.task(task).sets["test"]) if self.group else None

    def remarks(self) -> list[str]:
        """Return what is not read, by kind, and the classes that a split lacks."""
        if self.absent():
            return []
        layout, said = self._layout(), []
        kinds = Counter(path.suffix.lower() or "no ending" for path, reason in layout.notes if reason == OTHER)
        if kinds:
            listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda kind: -kind[1]))
            said.append(f"{self.folder}: {sum(kinds.values())} files are not read as images: {listed}")
        for reason, count in Counter(reason.partition(":")[0] for reason in layout.missing.values()).items():
            first = next(path for path, found in layout.missing.items() if found.startswith(reason))
            said.append(f"{self.folder}: {count} images cannot be used, {reason} (for one, {self.name_of(first)})")
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

    def _layout(self) -> Layout:
        base = self.folder
        if not base.is_dir():
            self.wrong_layout(f"{base} is no folder")
        apart = bool(self._dense()) or self._csv
        top = base / IMAGES if apart and (base / IMAGES).is_dir() else base
        inside: dict[str, Path] = {}
        for path in subfolders(top):
            name = SPLIT_OF.get(path.name.lower(), "")
            if name in inside:
                self.wrong_layout(f"{inside[name].name}/ and {path.name}/ in {top} are both a {name} split")
            if name:
                inside[name] = path
        if inside and "train" not in inside:
            self.wrong_layout(f"{top} has {sorted(path.name for path in inside.values())} but no train/")
        holders: dict[str, Path] = {split: inside[split] for split in SPLITS if split in inside} or {"": top}
        places = {
            split: folder / IMAGES if apart and (folder / IMAGES).is_dir() else folder
            for split, folder in holders.items()
        }
        found = {split: self._files(folder) for split, folder in places.items()}
        split, folder = next(iter(places.items()))
        within = {path.relative_to(folder).parts[0] for path in found[split].images if path.parent != folder}
        classed = self.labels == "folders" and len(within) > 1 and not (self.group and self.group.by)
        splits = {split: self._classed(folder, found[split].images, classed) for split, folder in places.items()}
        notes = [(path, OTHER) for files in found.values() for path in files.others if path != base / self.labels]
        notes += [note for files in found.values() for note in files.unread]
        if inside:
            below, whole = tuple(inside.values()), self._files(top)
            outside = [path for path in (*whole.images, *whole.others) if not any(map(path.is_relative_to, below))]
            beside = {
                path.relative_to(top).parts[0] for path in {*whole.images}.intersection(outside) - {*top.iterdir()}
            }
            if beside and inside.keys() == {"train"}:
                self.wrong_layout(
                    f"{top} has images in {inside['train'].name}/ and in {min(beside)}/: splits or classes? Expected "
                    "val/ or test/ too, or no folder of images beside them; rename a class that is called like a split"
                )
            notes += [(path, OUTSIDE) for path in outside if path != base / self.labels]
        layout = self._labelled(Layout(places, splits, notes), places, top)
        if wrong := fault(layout, inside, bool(self._dense()), self.labels):
            self.wrong_layout(f"{self.folder}: {wrong}")
        return layout

    def _files(self, folder: Path) -> Files:
        """List a folder without the label files that lie in it."""
        found, apart = images_in(folder), [folder / labels.folder for labels in self._dense()]
        if not apart:
            return found
        images, others = (
            [path for path in paths if not any(map(path.is_relative_to, apart))]
            for paths in (found.images, found.others)
        )
        return Files(images, others, found.unread)

    def _labelled(self, layout: Layout, places: Mapping[str, Path], top: Path) -> Layout:
        """Return the layout with the label files of its images, and the classes that a CSV file gives."""
        missing: dict[Path, str] = {}
        notes, splits = list(layout.notes), layout.splits
        if self._csv:
            listing = Listing(self.folder / self.labels)
            paths = {self.name_of(path): path for images in splits.values() for path, _ in images}
            notes += [(self.folder / key, NO_ROW) for key in listing.without_image(paths)]
            if CLASS in listing.columns:
                names = listing.column(CLASS, paths)
                missing = {path: f"no class in {self.labels}" for name, path in paths.items() if name not in names}
                splits = {
                    split: [(path, names.get(self.name_of(path), "")) for path, _ in images]
                    for split, images in splits.items()
                }
        looked = [match(labels, splits, places, top, self.folder) for labels in (self.masks, self.depth)]
        for found in looked:
            notes += [(path, NO_IMAGE) for path in found.extra]
            missing |= found.missing
        return Layout(places, splits, notes, looked[0].files, looked[1].files, missing)

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

    def _items(self, layout: Layout, split: str, copies: Mapping[Path, str], labels: Labels) -> list[Item]:
        number = {name: label for label, name in enumerate(layout.classes)}
        options = {"bits": self.bits or 16, "max_pixels": self.max_pixels}
        return [
            Item(
                self.name_of(path),
                partial(
                    decode_with_labels,
                    path,
                    self.resolution,
                    labels,
                    layout.masks.get(path),
                    layout.depth.get(path),
                    layout.missing.get(path, ""),
                    label=number.get(name),
                    **options,
                ),
                name,
            )
            for path, name in layout.splits.get(split, [])
            if path not in copies
        ]

    def _splits(self, layout: Layout, copies: Mapping[Path, str], labels: Labels = NO_LABELS) -> Splits:
        items = {split: self._items(layout, split, copies, labels) for split in layout.splits}
        if self.group and self.split == "given":
            side: dict[str, str] = {}
            for split, found in items.items():
                for item, group in zip(found, self._groups([item.id for item in found]), strict=True):
                    if side.setdefault(group, split) != split:
                        raise UserError(
                            f"domain {self.kind!r}: group {group!r} has images in {side[group]} and in {split} (for "
                            f"one, {item.id}); sort them to one side, or set `split: seeded`"
                        )
        return self.arrange(items)

    def _groups(self, names: Sequence[str]) -> list[str]:
        assert self.group is not None
        column = self.group.column
        values = Listing(self.folder / self.labels).column(column, names) if column else {}
        return [self.group.of(name, values) for name in names]

    def cut(self, items: Sequence[Item], counts: Sequence[int]) -> Sequence[Sequence[int]]:
        """Return the positions of the images of each part; whole groups where there are any."""
        if self.group is None:
            return super().cut(items, counts)
        return cut_groups(
            self._groups([item.id for item in items]), [item.stratum for item in items], counts, self.split_seed
        )

    def build(self, target: Path) -> None:
        """Decode all images to their central squares, with their labels."""
        layout = self._layout()
        copies = exact_copies(layout.splits, file_hashes(self.folder, self.sources()), self.name_of)
        for line in self.remarks():
            print(line)
        tasks: dict[Task, TaskInfo] = {}
        if layout.classes:
            tasks["classification"] = TaskInfo(sets={}, classes=layout.classes)
        table, said = None, list[str]()
        if self.masks:
            names, table, found = survey(self.masks, sorted(layout.masks.values()), self.folder / self.masks.folder)
            tasks["segmentation"] = TaskInfo(sets={}, classes=names)
            said.append(found)
        if self.depth:
            tasks["depth"] = TaskInfo(sets={}, depth_range=self.depth.range)
        labels = Labels(self.masks, table, self.depth)
        with self.writer(target) as writer:
            for path, reason in (*layout.notes, *sorted(copies.items())):
                writer.note(self.name_of(path), reason)
            if tasks:
                if self.group:
                    ids = [item.id for split in layout.splits for item in self._items(layout, split, copies, labels)]
                    np.save(target / GROUPS, np.array([*zip(ids, self._groups(ids), strict=True)]))
                write_splits(writer, self.kind, self._splits(layout, copies, labels), tasks)
            else:
                split = "train" if "train" in layout.splits else ""
                writer.add("pool", self.limited("train", self._items(layout, split, copies, labels)), ())
                writer.finish(self.kind, "pool", {"pool": ImageSet(array="pool")}, {})
        if self.depth:
            maps = {path.name: np.load(path, mmap_mode="r") for path in sorted(target.glob("*.depth.npy"))}
            said.append(depth_report(maps))
        if said:
            write_text(target / FOUND, "\n\n".join(said) + "\n")
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
