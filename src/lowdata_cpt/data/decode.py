"""Bytes to pixels: RGB images and label maps as squares, and one exception for what cannot be decoded."""

from __future__ import annotations

import contextlib
import io
import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import sha256_bytes

IGNORE = 255
"""Class id of unlabelled pixels in every store."""

MAX_DEPTH_METRES = 100.0
"""No benchmark here has a measured depth beyond this: larger values are another unit."""

MAX_PIXELS = 178_956_970
"""Pixels of the largest picture that is decoded unless more are allowed: where Pillow suspects a decompression bomb."""

LARGE_PIXELS = 40_000_000
"""Pictures beyond this are decoded one at a time, whatever the number of threads: that bounds memory."""

FORMATS = frozenset({
    "AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI", "TGA", "TIFF",
    "WEBP",
})  # fmt: skip
"""Pillow's formats of pictures. It knows many more, of data, documents and films, and runs Ghostscript for one."""

BITS_TAG = 258
"""Bits of a sample, in a TIFF."""

Image.MAX_IMAGE_PIXELS = None  # `max_pixels` is the limit here
_one_large = threading.Lock()

Box = tuple[float, float, float, float]
"""left, upper, right, lower in pixels of the source; fractions are allowed."""


class UndecodableError(Exception):
    """An image that cannot be used; the message is the reason written to quarantine.csv."""


@dataclass(frozen=True)
class Sample:
    """A decoded image with what labels it has.

    Attributes:
        image: uint8 [R, R, 3].
        sha256: of the source bytes of the image.
        label: class id.
        segmentation: uint8 [R, R], `IGNORE` where unlabelled.
        depth: float32 [R, R] in metres, 0 where not measured.
        pages: pictures in the file, of which this is the first.
        top: largest value of a 16-bit grey file; None for others.
    """

    image: NDArray[np.uint8]
    sha256: str
    label: int | None = None
    segmentation: NDArray[np.uint8] | None = None
    depth: NDArray[np.float32] | None = None
    pages: int = 1
    top: int | None = None


def open_picture(source: Path | IO[bytes]) -> Image.Image:
    """Open a file with the decoders of `FORMATS` alone, whatever its name says; pixels are not decoded yet."""
    Image.init()
    return Image.open(source, formats=[name for name in Image.ID if name in FORMATS])


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        UndecodableError: it is empty or cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UndecodableError(f"cannot be read ({error.strerror})") from None
    if not data:
        raise UndecodableError("empty file")
    return data


def _load(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, int]:
    """Decode all pixels of the first page, and count the pages; Pillow raises a dozen types for damaged files."""
    try:
        image = open_picture(io.BytesIO(data))
        pixels = image.width * image.height
        if pixels > max_pixels:
            raise UndecodableError(f"{pixels / 1e6:.0f} megapixels, more than `max_pixels` ({max_pixels / 1e6:.0f})")
        # A JPEG of several pictures is a photograph with its preview.
        pages = 1 if image.format in ("JPEG", "MPO") else _pages(image)
        image.load()
    except UndecodableError:
        raise
    except UnidentifiedImageError:
        raise UndecodableError("not an image that Pillow can read") from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise UndecodableError(f"damaged image ({' '.join(str(error).split()) or type(error).__name__})") from None
    except Exception as error:  # struct.error, zlib.error, … of single decoders
        raise UndecodableError(f"damaged image ({type(error).__name__}: {error})") from None
    return image, pages


def _pages(image: Image.Image) -> int:
    """Return how many pictures a file holds; 1 where a damaged page ends the count, as only the first is used."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:
        image.seek(0)
        return 1


class Picture(NamedTuple):
    """A decoded file: 8-bit RGB, the number of its pages, and the largest value of a 16-bit grey file."""

    image: Image.Image
    pages: int = 1
    top: int | None = None


def read_image(data: bytes, *, orient: bool = True) -> Image.Image:
    """Decode an image of any mode to 8-bit RGB; see `read_picture`."""
    return read_picture(data, orient=orient).image


def read_picture(data: bytes, *, orient: bool = True, bits: int = 16, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode an image of any mode to 8-bit RGB.

    16-bit grey is scaled from 0…2^bits − 1 (of a TIFF that says it has 12 bits, from these), transparent pixels are
    laid on white, and EXIF orientation is applied when `orient` (not for images with a mask: masks are drawn on the
    stored pixel grid).

    Raises:
        UndecodableError: the data is damaged, no image, has more than `max_pixels`, values beyond `bits`, or no
            defined 8-bit form (float images).
    """
    image, pages = _load(data, max_pixels)
    stated = getattr(image, "tag_v2", {}).get(BITS_TAG, (16,))[0]
    if orient:
        try:
            image = ImageOps.exif_transpose(image)
        except Exception as error:  # EXIF is parsed only here, and damaged EXIF raises what its parser stumbles on
            raise UndecodableError(f"damaged EXIF ({type(error).__name__}: {error})") from None
    if image.mode.startswith("I"):
        values, white_level = np.asarray(image).astype(np.int64), (1 << min(bits, stated)) - 1
        top = int(values.max())
        if values.min() < 0 or top > white_level:
            raise UndecodableError(f"{image.mode} image with values {values.min()} to {top}, beyond {bits} bits")
        scaled = ((values * 255 + white_level // 2) // white_level).astype(np.uint8)
        if image.has_transparency_data:
            scaled[values == image.info["transparency"]] = 255
        return Picture(Image.fromarray(scaled).convert("RGB"), pages, top if stated >= 16 else None)
    if image.mode == "F":
        raise UndecodableError("floating-point image, expected 8 or 16 bits")
    try:
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            return Picture(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"), pages)
        return Picture(image.convert("RGB"), pages)
    except (ValueError, OSError) as error:
        raise UndecodableError(f"no conversion from mode {image.mode} to RGB ({error})") from None


def _room(data: bytes) -> contextlib.AbstractContextManager[Any]:
    """Return what to hold while a file is decoded: large pictures wait for each other."""
    try:
        with open_picture(io.BytesIO(data)) as image:
            return _one_large if image.width * image.height > LARGE_PIXELS else contextlib.nullcontext()
    except Exception:  # decoding says what is wrong with it
        return contextlib.nullcontext()


def read_ids(data: bytes) -> NDArray[np.int64]:
    """Decode a single-channel label map; palette images give their indices: int64 [H, W].

    Raises:
        UndecodableError: the data is damaged or no image.
        UserError: the image has several channels, so its values are colours and not ids.
    """
    image, _ = _load(data)
    if len(image.getbands()) != 1 or image.mode == "F":
        raise UserError(f"a mask of mode {image.mode}, expected one channel of class ids")
    return np.asarray(image).astype(np.int64)


def square_box(width: float, height: float, fit: Literal["crop", "stretch"] = "crop") -> Box:
    """Return what of a frame becomes the square: its central square, or all of it with the aspect changed."""
    if fit == "stretch":
        return (0.0, 0.0, width, height)
    side = min(width, height)
    left, upper = (width - side) / 2, (height - side) / 2
    return (left, upper, left + side, upper + side)


def resize_image(image: Image.Image, box: Box, side: int) -> NDArray[np.uint8]:
    """Resample `box` of an RGB image, antialiased (bicubic with the filter widened when shrinking): [R, R, 3].

    Pixels outside the box are cut off first: Pillow's filter would reach over its edge, into borders and banners.
    """
    left, upper, right, lower = math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])
    inner = (box[0] - left, box[1] - upper, box[2] - left, box[3] - upper)
    cut = image.crop((left, upper, right, lower))
    return np.asarray(cut.resize((side, side), Image.Resampling.BICUBIC, box=inner))


def resize_nearest(array: NDArray[Any], box: Box, side: int) -> NDArray[Any]:
    """Take the source pixel under the centre of each target pixel: [H, W] -> [R, R].

    Labels have no mean, and the mean of depths across an edge is a depth that nothing has.
    """
    centres = (np.arange(side) + 0.5) / side
    rows = np.floor(box[1] + centres * (box[3] - box[1])).astype(np.int64).clip(0, array.shape[0] - 1)
    columns = np.floor(box[0] + centres * (box[2] - box[0])).astype(np.int64).clip(0, array.shape[1] - 1)
    taken: NDArray[Any] = array[np.ix_(rows, columns)]
    return taken


def class_table(mapping: dict[int, int], ignored: tuple[int, ...] | None) -> NDArray[np.int16]:
    """Return the look-up table raw id -> class id: int16 [65536], -1 where a raw id is not allowed.

    Args:
        mapping: raw id -> class id.
        ignored: raw ids that become `IGNORE`; None for every raw id that is not mapped.
    """
    table = np.full(1 << 16, IGNORE if ignored is None else -1, np.int16)
    table[list(ignored or ())] = IGNORE
    for raw, label in mapping.items():
        table[raw] = label
    return table


def to_classes(ids: NDArray[np.int64], table: NDArray[np.int16], where: str) -> NDArray[np.uint8]:
    """Map raw ids to class ids with a `class_table`: uint8, any shape.

    Raises:
        UserError: an id is not in the table.
    """
    if ids.min() < 0 or ids.max() >= len(table):
        raise UserError(f"{where}: mask values {ids.min()} to {ids.max()}, expected class ids")
    classes = table[ids]
    if (classes < 0).any():
        allowed = np.flatnonzero(table >= 0)
        raise UserError(
            f"{where}: mask value {ids[classes < 0][0]}, expected class ids among {allowed[0]} … {allowed[-1]}"
        )
    return classes.astype(np.uint8)


def check_depth(depth: NDArray[np.floating[Any]], where: str) -> NDArray[np.float32]:
    """Return depths in metres with 0 where not measured: float32, any shape.

    Raises:
        UserError: the values cannot be metres.
    """
    metres = np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)
    top = float(metres.max(initial=0))
    if top > MAX_DEPTH_METRES:
        raise UserError(f"{where}: depths up to {top:g}, expected metres (divide millimetres by 1000)")
    if 0 < top < 0.05:
        raise UserError(f"{where}: depths up to {top:g} only, expected metres (not kilometres or a 0…1 scale)")
    return metres


def decode_file(
    path: Path,
    side: int,
    *,
    label: int | None = None,
    cut_bottom: int = 0,
    bits: int = 16,
    max_pixels: int = MAX_PIXELS,
) -> Sample:
    """Decode an image file to its central square, after dropping `cut_bottom` rows of pixels.

    Raises:
        UndecodableError: see `read_picture`.
    """
    data = read_bytes(path)
    with _room(data):
        image, pages, top = read_picture(data, bits=bits, max_pixels=max_pixels)
        height = image.height - cut_bottom
        if height < 1:
            raise UndecodableError(f"{image.height} rows only")
        square = resize_image(image, square_box(image.width, height), side)
    return Sample(square, sha256_bytes(data), label, pages=pages, top=top)


def decode_array(pixels: NDArray[Any], side: int, label: int) -> Sample:
    """Decode one image of an array data set: uint8 [H, W] or [H, W, 3]; its sha256 is that of its bytes."""
    pixels = np.ascontiguousarray(pixels)
    image = Image.fromarray(pixels).convert("RGB")
    return Sample(resize_image(image, square_box(*image.size), side), sha256_bytes(pixels.tobytes()), label)


def decode_masked(image_path: Path, mask_path: Path, side: int, table: NDArray[np.int16]) -> Sample:
    """Decode an image with its mask of raw ids, which `table` maps to class ids.

    Raises:
        UndecodableError: either file is damaged.
        UserError: the mask has another size, several channels or unknown ids.
    """
    data = read_bytes(image_path)
    image = read_image(data, orient=False)
    try:
        ids = read_ids(read_bytes(mask_path))
    except UndecodableError as error:
        raise UndecodableError(f"its mask {mask_path.name}: {error}") from None
    except UserError as error:
        raise UserError(f"{mask_path}: {error}") from None
    if ids.shape != (image.height, image.width):
        raise UserError(
            f"{mask_path}: {ids.shape[1]}×{ids.shape[0]} pixels, expected {image.width}×{image.height} as its image"
        )
    box = square_box(*image.size)
    segmentation = resize_nearest(to_classes(ids, table, str(mask_path)), box, side)
    return Sample(resize_image(image, box, side), sha256_bytes(data), segmentation=segmentation)
