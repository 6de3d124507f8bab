"""Writing a store with little memory: images are decoded in parallel, in order, and appended to .npy files."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import sha256_file, write_json
from lowdata_cpt.data.decode import IGNORE, Sample, UndecodableError
from lowdata_cpt.data.store import INDEX, META, SPLITS, ImageSet, Meta, Split, Task, TaskInfo

BATCH = 128
"""Images decoded ahead of the writer: bounds memory."""

PAGES = "pages; the first is used"


@dataclass(frozen=True)
class Item:
    """One image to decode.

    Attributes:
        id: name of the image, unique in the domain.
        decode: returns its pixels and labels, or raises `UndecodableError`.
        stratum: what draws are balanced over: class, scene type, site, …; "" for nothing.
    """

    id: str
    decode: Callable[[], Sample]
    stratum: str = ""


class _Npy:
    """A .npy file that grows by one row at a time; the header gets the final count on closing."""

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._row_shape, self._dtype, self.rows = row_shape, dtype, 0
        self._stream = path.open("w+b")
        self._header()

    def _header(self) -> None:
        shape = (self.rows, *self._row_shape)
        facts = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._stream, facts)

    def append(self, row: NDArray[Any]) -> None:
        if row.shape != self._row_shape:
            raise ValueError(f"row of shape {row.shape}, expected {self._row_shape}")
        self._stream.write(np.ascontiguousarray(row, self._dtype).tobytes())
        self.rows += 1

    def close(self) -> None:
        # NumPy pads the header so that the first dimension can grow in place.
        self._stream.seek(0)
        self._header()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()


@dataclass
class Written:
    """What became of the items of one array: ids and hashes in row order, and the tasks with any valid label."""

    ids: list[str] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)
    labelled: set[Task] = field(default_factory=set)


class StoreWriter:
    """Writes arrays, index.csv, quarantine.csv and meta.json of a store (a context manager)."""

    def __init__(self, target: Path, side: int, max_quarantined: float = 0.05) -> None:
        """Write into the empty folder `target`; at most the share `max_quarantined` of the images may be unusable."""
        self.target, self.side, self.max_quarantined = target, side, max_quarantined
        self.quarantined: list[tuple[str, str]] = []
        self.notes: list[tuple[str, str]] = []
        self.top: int | None = None  # largest value of all 16-bit grey files
        self._seen: set[str] = set()
        self._index = (target / INDEX).open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._index, lineterminator="\n")
        self._rows.writerow(["array", "row", "id", "sha256", "stratum"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._index.close()

    def note(self, name: str, reason: str) -> None:
        """List in quarantine.csv what does not count as a bad image: other files, copies, remarks."""
        self.notes.append((name, reason))

    def add(
        self, array: str, items: Iterable[Item], tasks: Iterable[Task], excluded_hashes: Mapping[str, str] | None = None
    ) -> Written:
        """Decode `items` into arrays named `array`, in order; those that cannot be decoded are quarantined.

        Args:
            array: name of the array files.
            items: what to decode; may be lazy.
            tasks: labels to write; every sample must have them.
            excluded_hashes: sha256 -> name of images of other sets whose exact copies must not come in.

        Raises:
            UserError: two images have one id.
        """
        files, written, wanted = self._open(array, set(tasks)), Written(), set(tasks)
        try:
            for item, result in _decoded(items):
                if item.id in self._seen:
                    raise UserError(f"two images have the id {item.id!r}; ids must be unique in a domain")
                self._seen.add(item.id)
                if isinstance(result, str):
                    self.quarantined.append((item.id, result))
                elif excluded_hashes and result.sha256 in excluded_hashes:
                    self.note(item.id, f"left out: the same bytes as {excluded_hashes[result.sha256]}")
                else:
                    for kind, value in _values(result, wanted).items():
                        files[kind].append(value)
                    self._rows.writerow([array, len(written.ids), item.id, result.sha256, item.stratum])
                    written.ids.append(item.id)
                    written.sha256.append(result.sha256)
                    written.labelled |= {task for task in wanted - written.labelled if _has_label(result, task)}
                    self._remark(item.id, result)
        finally:
            for file in files.values():
                file.close()
        return written

    def _remark(self, name: str, sample: Sample) -> None:
        if sample.pages > 1:
            self.note(name, f"{sample.pages} {PAGES}")
        if sample.top is not None:
            self.top = max(self.top or 0, sample.top)

    def _open(self, array: str, tasks: set[Task]) -> dict[str, _Npy]:
        square, path = (self.side, self.side), self.target
        files = {"images": _Npy(path / f"{array}.images.npy", (*square, 3), np.dtype(np.uint8))}
        if "classification" in tasks:
            files["labels"] = _Npy(path / f"{array}.labels.npy", (), np.dtype(np.int64))
        if "segmentation" in tasks:
            files["segmentation"] = _Npy(path / f"{array}.segmentation.npy", square, np.dtype(np.uint8))
        if "depth" in tasks:
            files["depth"] = _Npy(path / f"{array}.depth.npy", square, np.dtype(np.float32))
        return files

    def check(self, domain: str) -> None:
        """Hold the quarantined share to the limit.

        Raises:
            UserError: too many images cannot be used, or all of them.
        """
        bad, total = len(self.quarantined), len(self._seen)
        if bad and (bad == total or bad > self.max_quarantined * total):
            name, reason = self.quarantined[0]
            raise UserError(
                f"domain {domain!r}: {bad} of {total} images cannot be used (for one, {name}: {reason}); "
                f"repair them or raise `max_quarantined` ({self.max_quarantined:g})"
            )

    def finish(self, domain: str, pool: str, sets: dict[str, ImageSet], tasks: dict[Task, TaskInfo]) -> None:
        """Write quarantine.csv and meta.json.

        Raises:
            UserError: too many images were quarantined.
        """
        self.check(domain)
        with (self.target / "quarantine.csv").open("w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream, lineterminator="\n")
            rows.writerow(["id", "reason"])
            rows.writerows(self.quarantined + self.notes)
        self._index.close()
        write_meta(self.target, domain, self.side, pool, sets, tasks)


def write_meta(
    folder: Path,
    domain: str,
    resolution: int,
    pool: str,
    sets: Mapping[str, ImageSet],
    tasks: Mapping[Task, TaskInfo],
) -> None:
    """Write meta.json of a store whose index and arrays are there: its last file, with the sha256 of each."""
    paths = [folder / INDEX, *sorted(folder.glob("*.npy"))]
    files = {path.name: sha256_file(path) for path in paths}
    meta = Meta(
        domain=domain,
        content_sha256="",
        resolution=resolution,
        pool=pool,
        sets=dict(sets),
        tasks=dict(tasks),
        files=files,
    )
    write_json(folder / META, meta.model_copy(update={"content_sha256": meta.content()}).model_dump(mode="json"))


def _values(sample: Sample, tasks: set[Task]) -> dict[str, NDArray[Any]]:
    """Return array kind -> value of the labels that are to be written."""
    values: dict[str, NDArray[Any]] = {"images": sample.image}
    if "classification" in tasks:
        values["labels"] = np.asarray(sample.label, np.int64)
    if "segmentation" in tasks:
        assert sample.segmentation is not None
        values["segmentation"] = sample.segmentation
    if "depth" in tasks:
        assert sample.depth is not None
        values["depth"] = sample.depth
    return values


def _has_label(sample: Sample, task: Task) -> bool:
    """Say whether an image has a label that can be scored."""
    if task == "segmentation":
        return sample.segmentation is not None and bool((sample.segmentation != IGNORE).any())
    if task == "depth":
        return sample.depth is not None and bool((sample.depth > 0).any())
    return True


def _try(item: Item) -> Sample | str:
    try:
        return item.decode()
    except UndecodableError as error:
        return str(error)


def _decoded(items: Iterable[Item]) -> Iterator[tuple[Item, Sample | str]]:
    """Decode in threads (Pillow releases the interpreter lock), results in the order of the items."""
    workers = min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        remaining = iter(items)
        while batch := list(islice(remaining, BATCH)):
            yield from zip(batch, pool.map(_try, batch), strict=True)


@dataclass(frozen=True)
class Splits:
    """The images of a labelled domain: items to decode of each split."""

    train: Iterable[Item]
    val: Iterable[Item]
    test: Iterable[Item]


def write_splits(writer: StoreWriter, domain: str, splits: Splits, tasks: Mapping[Task, TaskInfo]) -> None:
    """Write a whole labelled domain. The pool is the training images: no validation or test image is in it.

    The sets are named train, val, test and pool; `sets` of the given tasks is filled in. Exact copies of test
    images in train or val, and of val images in train, are left out and listed.

    Raises:
        UserError: a split has no usable image, or no label of it counts.
    """
    written: dict[Split, Written] = {}
    excluded: dict[str, str] = {}
    arrays: dict[Split, str] = {"test": "test", "val": "val", "train": "pool"}
    for split, array in arrays.items():
        found = written[split] = writer.add(array, getattr(splits, split), tasks, excluded)
        excluded |= {digest: f"{split} image {name}" for digest, name in zip(found.sha256, found.ids, strict=True)}
    writer.check(domain)
    for split, found in written.items():
        if not found.ids:
            raise UserError(f"domain {domain!r}: the {split} split has no image")
        for task in tasks:
            if task not in found.labelled:
                raise UserError(
                    f"domain {domain!r}: no pixel of the {len(found.ids)} {split} images has a {task} label that "
                    "counts (all are void), so nothing can be scored; mend the labels"
                )
    sets = {"pool": ImageSet(array="pool")} | {split: ImageSet(array=array) for split, array in arrays.items()}
    names: dict[Split, str] = {split: split for split in SPLITS}
    filled = {task: info.model_copy(update={"sets": names}) for task, info in tasks.items()}
    writer.finish(domain, "pool", sets, filled)
