"""Image files of every kind, made byte by byte where Pillow writes no such file: four quadrants of known colours."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32
Samples = NDArray[np.integer[Any]]
Colour = tuple[int, int, int]
COLOURS: tuple[Colour, Colour, Colour, Colour] = ((250, 10, 20), (30, 240, 10), (20, 30, 230), (240, 240, 20))
"""Of the quadrants, row by row."""
GREYS = (0, 85, 170, 255)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def grey(*levels: int) -> tuple[Colour, ...]:
    """The colours of four grey levels."""
    return tuple((level, level, level) for level in levels)


def quadrants(values: Any, side: int = SIDE) -> Samples:
    """Four values, or four colours, as a picture [side, side, channels]."""
    corners = np.asarray(values).reshape(2, 2, -1)
    return corners.repeat(side // 2, 0).repeat(side // 2, 1)


def rgb() -> Image.Image:
    return Image.fromarray(quadrants(COLOURS).astype(np.uint8))


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def packed(samples: Samples, bits: int, order: str = ">") -> list[bytes]:
    """Each row of [H, W, C] as bytes, `bits` a sample, padded to whole bytes."""
    flat = samples.reshape(len(samples), -1)
    if bits == 16:
        return [row.astype(f"{order}u2").tobytes() for row in flat]
    places = np.arange(bits - 1, -1, -1)
    return [np.packbits((row[:, None] >> places & 1).astype(np.uint8).ravel()).tobytes() for row in flat]


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    values: Any,
    bits: int,
    colour: int,
    *,
    palette: Any = (),
    clear: bytes = b"",
    adam7: bool = False,
    more: bytes = b"",
) -> bytes:
    """A PNG of four samples; `colour` is the type of the specification (0 grey, 2 RGB, 3 palette, 4 and 6 alpha)."""
    samples = quadrants(values)
    steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    passes = [samples[y::dy, x::dx] for x, y, dx, dy in steps] if adam7 else [samples]
    rows = b"".join(b"\0" + row for part in passes for row in packed(part, bits))
    head = struct.pack(">IIBBBBB", *samples.shape[1::-1], bits, colour, 0, 0, adam7)
    parts = chunk(b"IHDR", head) + more
    if len(palette):
        parts += chunk(b"PLTE", np.asarray(palette, np.uint8).tobytes())
    if clear:
        parts += chunk(b"tRNS", clear)
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def huge_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has that many pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def tiff(
    values: Any, bits: int = 8, photometric: int = 1, *, order: str = "<", tile: int = 0, planar: bool = False,
    sample_format: int = 1,
) -> bytes:  # fmt: skip
    """An uncompressed TIFF of four samples, in one strip, one strip a channel, or square tiles."""
    samples = quadrants(values)
    height, width, channels = samples.shape
    if tile:
        parts = [samples[y : y + tile, x : x + tile] for y in range(0, height, tile) for x in range(0, width, tile)]
    else:
        parts = np.split(samples, channels, axis=2) if planar else [samples]
    data = [b"".join(packed(part, bits, order)) for part in parts]
    starts = (8 + np.cumsum([0, *map(len, data)])).tolist()
    at, sizes = starts[:-1], [len(one) for one in data]
    shorts = {
        256: [width], 257: [height], 258: [bits] * channels, 259: [1], 262: [photometric], 277: [channels],
        284: [2 if planar else 1], 339: [sample_format] * channels,
    }  # fmt: skip
    longs = {324: at, 325: sizes} if tile else {273: at, 279: sizes}
    shorts |= {322: [tile], 323: [tile]} if tile else {278: [height]}
    entries, beyond = b"", b""
    tags = {**shorts, **longs}
    free = starts[-1] + 2 + 12 * len(tags) + 4
    for tag in sorted(tags):
        letter, number = ("H", 3) if tag in shorts else ("I", 4)
        value = struct.pack(f"{order}{len(tags[tag])}{letter}", *tags[tag])
        if len(value) > 4:
            value, beyond = struct.pack(f"{order}I", free + len(beyond)), beyond + value
        entries += struct.pack(f"{order}HHI", tag, number, len(tags[tag])) + value.ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + beyond
    return mark + struct.pack(f"{order}I", starts[-1]) + b"".join(data) + directory


def turned(orientation: int) -> bytes:
    """A JPEG whose stored pixels become the four quadrants when its EXIF orientation is applied."""
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180], 4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE], 6: [Image.Transpose.ROTATE_90], 7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }  # fmt: skip
    image, exif = rgb(), Image.Exif()
    for step in undo.get(orientation, []):
        image = image.transpose(step)
    exif[0x0112] = orientation
    return saved(image, "JPEG", exif=exif, quality=95)


def frames(kind: str, **options: Any) -> bytes:
    """Three pictures in one file, the four quadrants first."""
    return saved(rgb(), kind, save_all=True, append_images=[Image.new("RGB", (SIDE, SIDE), c) for c in ("red", "blue")],
                 **options)  # fmt: skip


def bmp565() -> bytes:
    """A BMP of 16 bits: five of red, six of green, five of blue."""
    red, green, blue = (quadrants(COLOURS)[::-1, :, i] for i in range(3))
    pixels = ((red >> 3) << 11 | (green >> 2) << 5 | blue >> 3).astype("<u2").tobytes()
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    info = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 16, 3, len(pixels), 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 66 + len(pixels), 0, 0, 66) + info + masks + pixels
