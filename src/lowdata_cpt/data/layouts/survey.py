"""What the label files of the user's own images hold: which values are which class, how much of each, which depths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.decode import IGNORE, UndecodableError
from lowdata_cpt.data.layouts import coco
from lowdata_cpt.data.layouts.label_files import Masks, code, named

MOST_UNNAMED = 64
"""Values that may become classes without being named: more are a photograph, or a mask that was saved with loss."""


LARGEST = 65535
"""Value of a mask, or category id, that can be a class."""


class Classes(NamedTuple):
    """What masks mean.

    Attributes:
        names: of the classes, in id order.
        table: int16 [65536 or 2^24], value or colour -> class id, `IGNORE`, or -1 where unknown.
        report: what was found, as Markdown.
    """

    names: tuple[str, ...]
    table: NDArray[np.int16]
    report: str


def survey(masks: Masks, paths: Iterable[Path], where: Path) -> Classes:
    """Read all masks once: which values there are, and which class each is.

    Raises:
        UserError: a value is not named, or there are too few or too many classes.
    """

    def look(path: Path) -> dict[int, int]:
        try:
            values, counts = np.unique(masks.read(path), return_counts=True)
        except UndecodableError:
            return {}  # decoding lists it
        return dict(zip(values.tolist(), counts.tolist(), strict=True))

    paths = list(paths)
    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(look, paths))
    pixels, images, first = Counter[int](), Counter[int](), dict[int, Path]()
    for path, found in zip(paths, seen, strict=True):
        pixels.update(found)
        images.update(found.keys())
        first = dict.fromkeys(found, path) | first
    listings = sorted({file for path in paths if (file := coco.file_of(path))})
    if not masks.colours and (outside := [value for value in pixels if not 0 <= value <= LARGEST]):
        value = max(outside, key=abs)
        raise UserError(f"{where}: a mask with the value {value} ({first[value].name}); expected 0 to {LARGEST}")
    mapping, ignored = _meaning(masks, sorted(pixels), listings, where)
    unknown = [value for value, _ in pixels.most_common() if value not in mapping and value not in ignored]
    if unknown:
        value = unknown[0]
        hint = "; were they saved with loss (JPEG), or smoothed?" if len(unknown) > MOST_UNNAMED else ""
        raise UserError(
            f"{where}: {len(unknown)} unknown mask value(s), for one {named(value, masks.colours)} in {images[value]} "
            f"of {len(paths)} masks ({first[value].name}); expected "
            f"{', '.join(named(known, masks.colours) for known in (*mapping, *ignored))}: name it in `classes` or "
            f"`ignore`{hint}"
        )
    names = tuple(mapping.values())
    if len(names) > IGNORE:
        raise UserError(
            f"{where}: {len(names)} classes; expected at most {IGNORE}: name those that count in `classes`, and list "
            "the values of the others in `ignore`"
        )
    table = np.full(1 << (24 if masks.colours else 16), -1, np.int16)
    table[list(ignored)] = IGNORE
    table[list(mapping)] = np.arange(len(mapping))
    total = max(1, sum(pixels.values()))
    rows = [
        f"| {named(value, masks.colours)} | {name} | {images[value]} | {100 * pixels[value] / total:.3g} % |"
        for value, name in (mapping | dict.fromkeys(ignored, "(ignored)")).items()
    ]
    head = [f"{len(paths)} masks, whole pictures:", "", "| value | class | masks | pixels |", "|---|---|---:|---:|"]
    return Classes(names, table, "\n".join([*head, *rows]))


def _meaning(masks: Masks, found: list[int], files: list[Path], where: Path) -> tuple[dict[int, str], tuple[int, ...]]:
    """Return value -> class name in id order, and the ignored values."""
    ignored = tuple(code(value) for value in masks.ignore)
    if isinstance(masks.classes, dict):
        return {code(value): name for name, value in masks.classes.items()}, ignored
    left = [value for value in found if value not in ignored]
    if masks.coco:
        return _categories(masks, left, files, where), ignored
    if masks.classes is not None:
        binary = len(masks.classes) == 2 and 255 in left and 1 not in left
        values = (0, 255) if binary else range(len(masks.classes))
        return dict(zip(values, masks.classes, strict=True)), ignored
    if not 2 <= len(left) <= MOST_UNNAMED:
        shown = ", ".join(map(str, left[:8]))
        raise UserError(
            f"{where}: masks with {len(left)} values ({shown}, …); expected 2 to {MOST_UNNAMED}, or `classes`"
        )
    return {value: str(value) for value in left}, ignored


def _categories(masks: Masks, found: list[int], files: list[Path], where: Path) -> dict[int, str]:
    """Return category id -> class name: the names that are asked for, or the background and all that occur."""
    known = {0: coco.BACKGROUND}
    for file in files:
        for value, name in coco.read(file).categories.items():
            if known.setdefault(value, name) != name:
                raise UserError(f"{file}: category {value} is {name!r}, elsewhere {known[value]!r}; expected one name")
    if masks.classes is None:
        return {value: known[value] for value in found}
    number = {name: value for value, name in known.items()}
    if unknown := [name for name in masks.classes if name not in number]:
        raise UserError(f"{where}: no category {unknown[0]!r}; expected some of {', '.join(map(repr, number))}")
    return {number[name]: name for name in masks.classes}


def depth_report(depths: Mapping[str, NDArray[np.float32]]) -> str:
    """Return what was found in the decoded depth maps [M, R, R] of each array, as Markdown."""
    measured = np.concatenate([maps[maps > 0] for maps in depths.values()])
    share = len(measured) / max(1, sum(maps.size for maps in depths.values()))
    low, middle, high = np.percentile(measured, [0, 50, 100])
    count = sum(len(maps) for maps in depths.values())
    return f"{count} depth maps: {low:.3g} to {high:.3g} m, median {middle:.3g} m; {100 * share:.3g} % of pixels valid."
