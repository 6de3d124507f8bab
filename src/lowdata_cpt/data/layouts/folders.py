"""What all domains on disk share: where the folder is, which files count, and what identifies their content."""

from __future__ import annotations

import os
import stat
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, NoReturn

from PIL import Image
from pydantic import Field

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.paths import DATA_ROOT, data_root, expanded
from lowdata_cpt.data.decode import FORMATS
from lowdata_cpt.data.domain import Domain
from lowdata_cpt.data.raw import ABSENT, content_hash, printable
from lowdata_cpt.data.splits import balanced_order, seeded_split
from lowdata_cpt.data.writer import Item, Splits, StoreWriter


class DatasetCard(NamedTuple):
    """The data card of a domain, and what its layout errors say."""

    title: str
    images: tuple[int, ...]
    """Images of each split as published; none where they are counted."""
    source: str
    licence: str
    how_to_get: str
    """What to download from whom and what the folder then holds; ends every layout error."""
    split: str
    labels: str
    limits: str
    pixels: str = (
        "RGB at the pixels' own aspect: the central square, antialiased bicubic; label maps nearest-neighbour."
    )


class FolderDomain(Domain):
    """A domain that is read from a folder of files in its published layout."""

    root: str | None = Field(
        default=None,
        description=f"Folder of the data set; relative paths are below ${DATA_ROOT} (default ./data), ~ and $NAME "
        "are expanded. "
        "Default: the domain's kind.",
    )
    max_quarantined: float = Field(
        default=0.05, ge=0, lt=1, description="Largest share of images that may be damaged before the run stops."
    )
    split: Literal["given", "seeded"] = Field(
        default="given",
        description="given: the data set's own train, val and test where it has them; seeded: all its labelled images "
        "are split anew by `split_seed`, e.g. for a larger test set. Scores are then not those of the published split.",
    )
    split_seed: int = Field(default=0, ge=0, description="Seed of the splits that the data set does not define.")
    max_images: int | None = Field(
        default=None,
        ge=1,
        description="Most images to decode of each split that the data set has, drawn by `split_seed` and balanced "
        "over strata; all when null.",
    )
    val_fraction: float = Field(
        default=0.2, gt=0, lt=0.5, description="Share cut off for validation where the data set has no such split."
    )
    test_fraction: float = Field(
        default=0.2, gt=0, lt=0.5, description="Share cut off for testing where the data set has no such split."
    )
    val_images: int | None = Field(
        default=None,
        ge=1,
        description="Number of validation images, instead of `val_fraction`; of a val split that the data set has, "
        "the most images to decode, instead of `max_images`. What is cut for validation is in no pool.",
    )
    test_images: int | None = Field(
        default=None, ge=1, description="The same for testing, instead of `test_fraction` and `max_images`."
    )

    dataset: ClassVar[DatasetCard]
    """What the data card and the layout errors say."""

    @classmethod
    def card(cls) -> str:
        """Return the data card (Markdown): source, licence, splits, units, known limits."""
        facts = cls.dataset
        parts = {
            "Source": facts.source,
            "Licence": facts.licence,
            "Get it": f"{facts.how_to_get[0].upper()}{facts.how_to_get[1:]}.",
            "Split": facts.split,
            "Labels": facts.labels,
            "Pixels": facts.pixels,
            "Known limits": facts.limits,
        }
        body = "\n\n".join(f"**{name}.** {text}" for name, text in parts.items())
        return f"# {cls.model_fields['kind'].default}: {facts.title}\n\n{body}\n"

    @property
    def folder(self) -> Path:
        """The data set's folder, existing or not."""
        root = self._kind if self.root is None else expanded(self.root)
        return data_root() / root

    def count(self) -> int | None:
        """Return the number of images as published, at most `max_images` of each split."""
        return self.at_most(self.dataset.images)

    def at_most(self, images: tuple[int, ...]) -> int:
        """Return how many are decoded of splits of so many images."""
        return sum(min(number, self.max_images or number) for number in images)

    def absent(self) -> str | None:
        """Return why the data cannot be had on this machine: its folder is missing or empty."""
        if self.folder.is_dir() and any(self.folder.iterdir()):
            return None
        return f"no data in {self.folder}; {self.dataset.how_to_get}"

    @property
    def _kind(self) -> str:
        return str(type(self).model_fields["kind"].default)

    @abstractmethod
    def sources(self) -> Iterable[Path]:
        """Return every file whose content decides the decoded store.

        Raises:
            UserError: the folder is missing or has another layout.
        """

    def raw_fingerprint(self) -> str:
        """Return the sha256 over names and contents of all source files, "absent" where there are none."""
        return ABSENT if self.absent() else content_hash(self.folder, self.sources())

    def fingerprint(self) -> dict[str, Any]:
        """Return the settings, but not where the folder lies, and the source files' content."""
        settings = self.model_dump(mode="json", exclude={"sizes", "root"})
        return {"settings": settings, "raw": content_hash(self.folder, self.sources())}

    def writer(self, target: Path) -> StoreWriter:
        """Return a writer of this domain's resolution and limits."""
        return StoreWriter(target, self.resolution, self.max_quarantined)

    def name_of(self, path: Path) -> str:
        """Return a file's id: its path below the folder."""
        return printable(path.relative_to(self.folder))

    def wrong_layout(self, found: str) -> NoReturn:
        """Raise the error that says what is wrong and what belongs there."""
        raise UserError(printable(f"domain {self._kind!r}: {found}; {self.dataset.how_to_get}"))

    def need(self, *parts: str) -> Path:
        """Return a path below the folder.

        Raises:
            UserError: it does not exist.
        """
        path = self.folder.joinpath(*parts)
        if not path.exists():
            self.wrong_layout(f"{path} is missing")
        return path

    def arrange(self, items: Mapping[str, Sequence[Item]]) -> Splits:
        """Return the splits, the missing ones cut by seed and balanced over strata.

        Args:
            items: either {"": all images} of a data set without splits, or its train and test and maybe val.

        Raises:
            UserError: nothing would be left to train on.
        """
        if self.split == "seeded":
            items = {"": [item for found in items.values() for item in found]}
        items = {split: self.limited(split, found) for split, found in items.items()}
        if "val" in items:
            return Splits(items["train"], items["val"], items["test"])
        found = items["train"] if "train" in items else items[""]
        counts = [self.val_images or max(1, round(self.val_fraction * len(found)))]
        if "train" not in items:
            counts.append(self.test_images or max(1, round(self.test_fraction * len(found))))
        if sum(counts) >= len(found):
            raise UserError(
                f"domain {self._kind!r}: {' and '.join(map(str, counts))} images for validation and testing leave none "
                f"of {len(found)} to train on; set smaller `val_images`, `test_images` or fractions"
            )
        val, *test, train = [[found[i] for i in part] for part in self.cut(found, counts)]
        return Splits(train, val, test[0] if test else items["test"])

    def cut(self, items: Sequence[Item], counts: Sequence[int]) -> Sequence[Sequence[int]]:
        """Return the positions of the images of each part: `counts` many, and what is left."""
        parts = seeded_split([i.id for i in items], [i.stratum for i in items], counts, self.split_seed)
        return [part.tolist() for part in parts]

    def limit(self, split: str) -> int | None:
        """Return the most images to decode of a split that the data set has; None for all."""
        own = {"val": self.val_images, "test": self.test_images}.get(split)
        return own or self.max_images

    def limited(self, split: str, items: Sequence[Item]) -> Sequence[Item]:
        """Return at most `limit(split)` items, in their own order."""
        most = self.limit(split)
        if most is None or len(items) <= most:
            return items
        order = balanced_order([i.id for i in items], [i.stratum for i in items], self.split_seed, "split")
        return [items[i] for i in sorted(order[:most])]


class Files(NamedTuple):
    """What lies below a folder, hidden things left out.

    Attributes:
        images: files named like images.
        others: the other files.
        unread: folders, and what is no file, that are not read, with the reason.
    """

    images: list[Path]
    others: list[Path]
    unread: list[tuple[Path, str]]


def image_suffixes() -> frozenset[str]:
    """Return the file name endings (lower case, with dot) of the picture formats that Pillow reads here."""
    endings = Image.registered_extensions()  # loads Pillow's plugins, without which Image.OPEN is empty
    return frozenset(ending for ending, name in endings.items() if name in FORMATS and name in Image.OPEN)


def images_in(folder: Path) -> Files:
    """List the files below a folder, sorted, each once; links are followed unless they close a circle.

    Dangling links count as files: decoding says that they cannot be read.
    """
    files: list[Path] = []
    unread: list[tuple[Path, str]] = []
    seen: set[tuple[int, int]] = set()
    waiting, links = [folder], list[Path]()
    while waiting or links:
        linked = not waiting  # real folders come first, so that a file is listed under its own path
        current = links.pop(0) if linked else waiting.pop(0)
        try:
            facts = current.stat()
            circle = linked and current.parent.resolve().is_relative_to(current.resolve())
            if circle or (facts.st_dev, facts.st_ino) in seen:
                unread.append((current, "a link to a folder that is read already, or that it lies in"))
                continue
            seen.add((facts.st_dev, facts.st_ino))
            with os.scandir(current) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    path = current / entry.name
                    if entry.name.startswith("."):
                        continue
                    try:
                        mode = entry.stat().st_mode
                    except OSError:  # a link to nowhere or to itself
                        mode = stat.S_IFREG
                    if stat.S_ISDIR(mode):
                        (links if entry.is_symlink() else waiting).append(path)
                    elif stat.S_ISREG(mode):
                        files.append(path)
                    else:  # reading one may never end
                        unread.append((path, "a device, pipe or socket"))
        except OSError as error:
            unread.append((current, f"cannot be read ({error.strerror})"))
    suffixes = image_suffixes()
    images = {path for path in files if path.suffix.lower() in suffixes}
    return Files(sorted(images), sorted(set(files) - images), sorted(unread))


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders directly below a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def lines_of(path: Path) -> list[str]:
    """Return the non-empty lines of a text file, stripped."""
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
