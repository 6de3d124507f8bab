"""MedMNIST+: small medical images, read as a stream from the .npz file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.decode import decode_array
from lowdata_cpt.data.layouts.folders import DatasetCard, FolderDomain
from lowdata_cpt.data.splits import balanced_order
from lowdata_cpt.data.store import SPLITS, Task, TaskInfo
from lowdata_cpt.data.writer import Item, Splits, write_splits

IMAGES = {
    "pathmnist": (89_996, 10_004, 7_180),
    "dermamnist": (7_007, 1_003, 2_005),
    "octmnist": (97_477, 10_832, 1_000),
    "pneumoniamnist": (4_708, 524, 624),
    "retinamnist": (1_080, 120, 400),
    "breastmnist": (546, 78, 156),
    "bloodmnist": (11_959, 1_712, 3_421),
    "tissuemnist": (165_466, 23_640, 47_280),
    "organamnist": (34_561, 6_491, 17_778),
    "organcmnist": (12_975, 2_392, 8_216),
    "organsmnist": (13_932, 2_452, 8_827),
}
"""The 2D sets with one label an image: images of train, val and test, as published."""


class MedMNIST(FolderDomain):
    """One of the MedMNIST+ 2D sets."""

    label: ClassVar[str] = "MedMNIST"
    kind: Literal["medmnist"] = "medmnist"
    flag: Literal[tuple(IMAGES)] = Field(  # type: ignore[valid-type]
        default="pathmnist", description="Which of the 2D sets with one label an image."
    )
    pixels: Literal[28, 64, 224] = Field(default=224, description="Side in pixels of the published images.")

    labelled: ClassVar[tuple[Task, ...]] = ("classification",)
    dataset: ClassVar[DatasetCard] = DatasetCard(
        title="MedMNIST+ (2D)",
        images=(),
        source='Yang et al., "MedMNIST v2: A large-scale lightweight benchmark for 2D and 3D biomedical image '
        'classification", Scientific Data 2023.',
        licence="CC BY 4.0, dermamnist CC BY-NC 4.0 (the authors' page).",
        how_to_get="download <flag>.npz (28 pixels), <flag>_64.npz or <flag>_224.npz, e.g. pathmnist_224.npz, from the "
        "authors' MedMNIST archive into that folder",
        split="Official train (the pool), val and test. Strata: classes.",
        labels="Classes are numbered as in the file; their names are in the authors' INFO table.",
        limits="chestmnist (14 labels an image) and the 3D sets are not single-label 2D sets and are not offered.",
    )

    @field_validator("split")
    @classmethod
    def _given(cls, split: str) -> str:
        if split != "given":
            raise ValueError("MedMNIST is read as a stream and keeps its official split; expected given")
        return split

    def _path(self) -> Path:
        return self.need(f"{self.flag}.npz" if self.pixels == 28 else f"{self.flag}_{self.pixels}.npz")

    def count(self) -> int:
        """Return the number of images of the set."""
        return self.at_most(IMAGES[self.flag])

    def sources(self) -> Iterable[Path]:
        """Return the one file."""
        return [self._path()]

    def build(self, target: Path) -> None:
        """Decode the three splits."""
        path = self._path()
        labels = {split: self._labels(path, split) for split in SPLITS}
        classes = tuple(str(label) for label in range(max(int(values.max()) for values in labels.values()) + 1))
        train, val, test = (self._items(path, split, labels[split]) for split in SPLITS)
        splits = Splits(train, val, test)
        tasks: dict[Task, TaskInfo] = {"classification": TaskInfo(sets={}, classes=classes)}
        with self.writer(target) as writer:
            write_splits(writer, self.kind, splits, tasks)

    def _labels(self, path: Path, split: str) -> NDArray[np.int64]:
        values = np.stack(list(self._rows(path, f"{split}_labels")))
        if values.ndim != 2 or values.shape[1] != 1 or values.dtype.kind not in "iu" or values.min() < 0:
            raise UserError(
                f"{path}: `{split}_labels` has the shape {values.shape}, expected one class id an image (N, 1)"
            )
        return values[:, 0].astype(np.int64)

    def _kept(self, split: str, labels: NDArray[np.int64]) -> set[int]:
        """Return the rows to decode: all, or at most `limit(split)` of them."""
        most = self.limit(split)
        if most is None or len(labels) <= most:
            return set(range(len(labels)))
        ids = [f"{split}/{row:06d}" for row in range(len(labels))]
        order = balanced_order(ids, [str(label) for label in labels], self.split_seed, "split")
        return set(order[:most].tolist())

    def _items(self, path: Path, split: str, labels: NDArray[np.int64]) -> Iterator[Item]:
        count, kept = 0, self._kept(split, labels)
        for pixels in self._rows(path, f"{split}_images"):
            if pixels.dtype != np.uint8 or pixels.shape not in ((self.pixels,) * 2, (self.pixels, self.pixels, 3)):
                raise UserError(
                    f"{path}: `{split}_images` are {pixels.dtype}{pixels.shape}, expected uint8 of side {self.pixels}"
                )
            if count == len(labels):
                raise UserError(f"{path}: `{split}_images` has more rows than the {len(labels)} of `{split}_labels`")
            label = int(labels[count])
            if count in kept:
                yield Item(f"{split}/{count:06d}", partial(decode_array, pixels, self.resolution, label), str(label))
            count += 1
        if count < len(labels):
            raise UserError(f"{path}: `{split}_images` has {count} rows, `{split}_labels` {len(labels)}")

    def _rows(self, path: Path, name: str) -> Iterator[NDArray[np.generic]]:
        """Yield the rows of an array in the archive one by one: the 224-pixel sets do not fit into memory."""
        try:
            with zipfile.ZipFile(path) as archive:
                if f"{name}.npy" not in archive.namelist():
                    self.wrong_layout(f"{path} has no array `{name}`")
                with archive.open(f"{name}.npy") as stream:
                    version = np.lib.format.read_magic(stream)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, fortran, dtype = read(stream)
                    if fortran or dtype.hasobject or not shape or not shape[0]:
                        raise UserError(f"{path}: `{name}` is empty or no plain array in C order")
                    size = int(np.prod(shape[1:])) * dtype.itemsize
                    for _ in range(shape[0]):
                        data = stream.read(size)
                        if len(data) != size:
                            raise EOFError(f"{name} is cut short")
                        yield np.frombuffer(data, dtype).reshape(shape[1:])
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, RuntimeError) as error:
            raise UserError(f"{path}: not a whole .npz archive ({error})") from None
