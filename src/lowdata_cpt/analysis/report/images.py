"""Figures as small pictures inside the page, together below a budget: the report is sent by mail."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

BUDGET = 1_300_000  # bytes of base64; with the tables the page stays below 2 MiB
WIDE, NARROW = 1000, 560  # pixels: of a main figure, of the others


class Thumbnail(NamedTuple):
    """A picture of the page: its address, and its size in pixels, so that nothing moves while the page loads."""

    source: str
    width: int
    height: int


def thumbnail(path: Path, width: int) -> Thumbnail:
    """Return a PNG as WebP of at most `width` pixels: of two encodings (64 colours, photograph) the smaller."""
    with Image.open(path) as image:
        flat = Image.new("RGB", image.size, "white")
        flat.paste(image, mask=image.getchannel("A") if "A" in image.getbands() else None)
    flat.thumbnail((width, 4 * width), Image.Resampling.LANCZOS)
    encoded = []
    for picture, options in ((flat.quantize(64).convert("RGB"), {"lossless": True}), (flat, {"quality": 60})):
        small = io.BytesIO()
        picture.save(small, format="webp", method=4, **options)
        encoded.append(small.getvalue())
    data = base64.b64encode(min(encoded, key=len)).decode("ascii")
    return Thumbnail(f"data:image/webp;base64,{data}", *flat.size)


def thumbnails(paths: Sequence[Path], wide: int, budget: int = BUDGET) -> dict[Path, Thumbnail]:
    """Return the thumbnails of figures, the first `wide` larger; those that no longer fit the budget are left out."""
    found: dict[Path, Thumbnail] = {}
    for index, path in enumerate(paths):
        made = thumbnail(path, WIDE if index < wide else NARROW)
        budget -= len(made.source)
        if budget < 0:
            break
        found[path] = made
    return found
