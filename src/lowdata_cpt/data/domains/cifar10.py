"""CIFAR-10 in its binary version: no pickles are opened."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.decode import decode_array
from lowdata_cpt.data.layouts.folders import DatasetCard, FolderDomain, lines_of
from lowdata_cpt.data.store import Task, TaskInfo
from lowdata_cpt.data.writer import Item, write_splits

FOLDER = "cifar-10-batches-bin"
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST, NAMES = "test_batch.bin", "batches.meta.txt"
SIDE = 32
RECORD = 1 + 3 * SIDE * SIDE


class CIFAR10(FolderDomain):
    """CIFAR-10, 10 classes of 32×32 images."""

    label: ClassVar[str] = "CIFAR-10"
    kind: Literal["cifar10"] = "cifar10"

    labelled: ClassVar[tuple[Task, ...]] = ("classification",)
    dataset: ClassVar[DatasetCard] = DatasetCard(
        title="CIFAR-10",
        images=(50_000, 10_000),
        source='Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; 32×32 pixels.',
        licence="None stated.",
        how_to_get=f"download the binary version cifar-10-binary.tar.gz from the CIFAR page of Alex Krizhevsky "
        f"(University of Toronto) and unpack it so that {FOLDER}/ lies in that folder",
        split="Official: 50,000 training images (val is a seeded part, the pool the rest) and 10,000 test images.",
        labels=f"10 classes, the lines of {NAMES}.",
        limits="A few test images are near-duplicates of training images (Barz and Denzler 2020). Images are enlarged "
        "from 32 pixels.",
    )

    def sources(self) -> Iterable[Path]:
        """Return the six batches and the class names."""
        return [self.need(FOLDER, name) for name in (*TRAIN, TEST, NAMES)]

    def build(self, target: Path) -> None:
        """Decode the records; strata are the classes."""
        path = self.need(FOLDER, NAMES)
        classes = tuple(lines_of(path))
        if len(classes) != 10:
            raise UserError(f"{path}: {len(classes)} class names, expected 10")
        items = {
            "train": [item for name in TRAIN for item in self._items(name, classes)],
            "test": self._items(TEST, classes),
        }
        tasks: dict[Task, TaskInfo] = {"classification": TaskInfo(sets={}, classes=classes)}
        with self.writer(target) as writer:
            write_splits(writer, self.kind, self.arrange(items), tasks)

    def _items(self, name: str, classes: tuple[str, ...]) -> list[Item]:
        path = self.need(FOLDER, name)
        size = path.stat().st_size
        if size == 0 or size % RECORD:
            raise UserError(f"{path}: {size} bytes, expected a multiple of {RECORD} (one label and 3×32×32 pixels)")
        records = np.memmap(path, np.uint8, "r").reshape(-1, RECORD)
        if records[:, 0].max() >= len(classes):
            raise UserError(f"{path}: label {records[:, 0].max()}, expected 0 to {len(classes) - 1}")
        return [
            Item(
                f"{path.stem}/{row:05d}",
                partial(
                    decode_array,
                    record[1:].reshape(3, SIDE, SIDE).transpose(1, 2, 0),
                    self.resolution,
                    int(record[0]),
                ),
                classes[record[0]],
            )
            for row, record in enumerate(records)
        ]
