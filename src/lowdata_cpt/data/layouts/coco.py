"""Masks of one COCO JSON: polygons and run lengths become maps of category ids through pycocotools.

A mask is named `<file>.json/<file_name>`, so that it can stand where mask files stand.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.decode import UndecodableError

JSON = ".json"
BACKGROUND = "background"
"""Class 0: pixels that no annotation covers."""


class Annotated(NamedTuple):
    """What a COCO file holds.

    Attributes:
        categories: id -> name.
        images: file_name -> (height, width, annotations).
    """

    categories: Mapping[int, str]
    images: Mapping[str, tuple[int, int, list[dict[str, Any]]]]


@functools.lru_cache(maxsize=8)
def read(path: Path) -> Annotated:
    """Read a COCO JSON.

    Raises:
        UserError: it is no JSON, lacks a part, names a file or an id twice, or has ids that are no 16-bit numbers.
    """
    try:
        found = json.loads(path.read_bytes())
        categories = {int(one["id"]): str(one["name"]) for one in found["categories"]}
        by_id: dict[Any, list[dict[str, Any]]] = {one["id"]: [] for one in found["images"]}
        images = {
            str(one["file_name"]): (int(one["height"]), int(one["width"]), by_id[one["id"]]) for one in found["images"]
        }
        for one in found["annotations"]:
            if one["category_id"] not in categories:
                raise UserError(
                    f"{path}: annotation {one['id']} is of category {one['category_id']}, which is not listed"
                )
            by_id[one["image_id"]].append(one)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a COCO JSON with images, categories and annotations ({type(error).__name__}: {error})"
        ) from None
    for what, left, listed in (("category id", categories, "categories"), ("file_name", images, "images")):
        if len(left) != len(found[listed]):
            raise UserError(f"{path}: a {what} is given twice; expected each once")
    if wrong := [number for number in categories if not 0 < number <= 65535]:
        raise UserError(f"{path}: category id {wrong[0]}; expected 1 to 65535, as 0 is {BACKGROUND}")
    return Annotated(categories, images)


def file_of(mask: Path) -> Path | None:
    """Return the COCO file that a mask's name begins with, None for a mask that is a file of its own."""
    return next((parent for parent in mask.parents if parent.suffix.lower() == JSON and parent.is_file()), None)


def mask_of(path: Path, name: str) -> NDArray[np.int64]:
    """Return the category id of each pixel of an image, 0 where there is none: int64 [H, W].

    Where annotations overlap, the one of fewer pixels counts.

    Raises:
        UndecodableError: the image is not in the file, or a segmentation is none.
    """
    # Compiled, and only these folders need it.
    from pycocotools import mask as coder  # type: ignore[import-untyped]

    known = read(path).images.get(name)
    if known is None:
        raise UndecodableError(f"no image {name!r} in {path.name}")
    height, width, annotations = known
    areas = []
    for one in annotations:
        drawn: Any = one.get("segmentation")
        try:
            if isinstance(drawn, list):
                code = coder.merge(coder.frPyObjects(drawn, height, width))
            elif isinstance(drawn["counts"], list):
                code = coder.frPyObjects(drawn, height, width)
            else:
                code = drawn
            area = coder.decode(code).astype(bool)
        except Exception as error:  # pycocotools raises what its C code meets
            raise UndecodableError(f"annotation {one.get('id')} has no usable segmentation ({error})") from None
        if area.shape != (height, width):
            raise UndecodableError(f"annotation {one.get('id')} has a mask of {area.shape}, its image of {known[:2]}")
        areas.append((int(area.sum()), int(one["category_id"]), area))
    found = np.zeros((height, width), np.int64)
    for _, category, area in sorted(areas, key=lambda one: -one[0]):
        found[area] = category
    return found
