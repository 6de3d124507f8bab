"""Labels on the pixels of the user's own images: masks and depth maps, one file an image, of the image's name."""

from __future__ import annotations

import dataclasses
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.strict import Strict
from lowdata_cpt.data.decode import (
    IGNORE,
    Sample,
    UndecodableError,
    decode_file,
    open_picture,
    read_bytes,
    read_ids,
    read_image,
    resize_nearest,
    square_box,
)
from lowdata_cpt.data.layouts import coco
from lowdata_cpt.data.layouts.folders import images_in

Byte = Annotated[int, Field(ge=0, le=255)]
Value = Annotated[int, Field(ge=0, le=65535)] | tuple[Byte, Byte, Byte]
"""A value of a one-channel mask, or a colour."""

BELOW = r"^[^/.][^:]*$"  # a relative path
ORIENTATION = 0x0112  # the EXIF tag
WIDTH, HEIGHT = 256, 257  # a TIFF's tags: of the stored pixels
NPY, EXR = ".npy", ".exr"
DEPTH_CHANNELS = ("Z", "Y")
DEPTH_FORMATS = ("PNG", "TIFF")


class LabelFiles(Strict):
    """Where the label files of images are."""

    folder: str = Field(min_length=1, pattern=BELOW, description="Folder of the files, beside the images.")
    suffix: str = Field(default="", description="What the files' names have after the image's name, e.g. _mask.")


class Masks(LabelFiles):
    """Class masks: one channel of values (palette images: their indices), or colours."""

    folder: str = Field(
        default="masks", min_length=1, pattern=BELOW, description="Folder of the masks, or one COCO JSON file of all."
    )
    classes: dict[str, Value] | tuple[str, ...] | None = Field(
        default=None,
        description="Name -> value, or name -> colour as [red, green, blue]. A list of names stands for the values 0, "
        "1, …, two names also for 0 and 255. Null: every value that is found is a class. Of a COCO JSON the values are "
        "category ids, 0 is background, and null takes its names.",
    )
    ignore: tuple[Value, ...] = Field(default=(), description="Values, or colours, that neither train nor count.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        named = list(self.classes.values()) if isinstance(self.classes, dict) else []
        if self.classes is not None and not 2 <= len(self.classes) <= IGNORE:
            raise ValueError(f"classes has {len(self.classes)} entries; expected 2 to {IGNORE}")
        if self.colours and not all(isinstance(value, tuple) for value in (*named, *self.ignore)):
            raise ValueError("classes and ignore mix values and colours; expected one kind")
        if self.coco and self.colours:
            raise ValueError("classes and ignore have colours; expected category ids of the COCO JSON")
        if self.colours and not named:
            raise ValueError("ignore has colours, but classes has none; expected name -> [red, green, blue]")
        codes = [code(value) for value in (*named, *self.ignore)]
        if len(set(codes)) != len(codes):
            raise ValueError("a value or colour is given twice in classes and ignore")
        return self

    @property
    def colours(self) -> bool:
        """Whether classes are told by colour."""
        named = list(self.classes.values()) if isinstance(self.classes, dict) else []
        return any(isinstance(value, tuple) for value in (*named, *self.ignore))

    @property
    def coco(self) -> bool:
        """Whether all masks are in one COCO JSON."""
        return self.folder.lower().endswith(coco.JSON)

    def read(self, path: Path) -> NDArray[np.int64]:
        """Return a mask's values, or its colours as 0xRRGGBB: int64 [H, W].

        Raises:
            UndecodableError: the file is damaged or no image.
            UserError: it has colours, and classes are told by value.
        """
        if self.coco and (listing := coco.file_of(path)):
            return coco.mask_of(listing, path.relative_to(listing).as_posix())
        data = read_bytes(path)
        if not self.colours:
            try:
                return read_ids(data)
            except UserError:
                pass  # a grey image that was saved with three channels has one value a pixel all the same
        pixels = np.asarray(read_image(data, orient=False)).astype(np.int64)
        packed: NDArray[np.int64] = pixels @ np.array([1 << 16, 1 << 8, 1])
        if self.colours:
            return packed
        if (pixels != pixels[..., :1]).any():
            most = ", ".join(named(value, True) for value, _ in Counter(packed.ravel().tolist()).most_common(4))
            raise UserError(
                f"{path}: a mask of colours ({most}); expected one channel, or "
                "`classes: {name: [red, green, blue], …}` for each"
            )
        return pixels[..., 0]


class Depth(LabelFiles):
    """Depth maps: 8- or 16-bit PNG, TIFF (16-bit or float), NPY, or EXR."""

    folder: str = Field(default="depth", min_length=1, pattern=BELOW, description="Folder of the depth maps.")
    scale: float | None = Field(
        default=None,
        gt=0,
        description="Metres per unit, e.g. 0.001 for millimetres. Null: 1 for floats; whole numbers need it.",
    )
    invalid: tuple[float, ...] = Field(
        default=(0.0,), description="Values, as stored, of pixels that were not measured; so are NaN and infinity."
    )
    range: tuple[float, float] = Field(
        default=(0.001, 100.0), description="Metres that count, inclusive; depths beyond count as not measured."
    )

    @model_validator(mode="after")
    def _a_range(self) -> Self:
        if not 0 < self.range[0] < self.range[1]:
            raise ValueError(f"range is {list(self.range)}; expected [lowest, highest] in metres, above 0")
        return self

    def read(self, path: Path) -> NDArray[np.float32]:
        """Return depths in metres, 0 where not measured: float32 [H, W].

        Raises:
            UndecodableError: the file is damaged, or no pixel is valid.
            UserError: it has no single channel, or whole numbers without a scale.
        """
        raw = _numbers(path)
        if raw.dtype.kind not in "iuf":
            raise UserError(f"{path}: a depth map of {raw.dtype}; expected whole numbers or floats")
        if raw.ndim != 2:
            raise UserError(f"{path}: a depth map of shape {list(raw.shape)}; expected one channel")
        if self.scale is None and raw.dtype.kind != "f":
            raise UserError(
                f"{path}: whole numbers up to {raw.max(initial=0)} ({raw.dtype}); expected `depth: {{scale: …}}`, "
                "metres per unit, e.g. 0.001 for millimetres"
            )
        metres = raw.astype(np.float64) * (self.scale or 1.0)
        low, high = self.range
        with np.errstate(invalid="ignore", over="ignore"):
            # Rounded as the file's numbers are: 65.535 is no number of 32 bits.
            invalid = np.asarray(self.invalid, raw.dtype if raw.dtype.kind == "f" else np.float64)
            known = np.isfinite(metres) & ~np.isin(raw, invalid)
            valid = known & (metres >= low) & (metres <= high)
        if not valid.any():
            measured = metres[known]
            found = f"{measured.min():g} to {measured.max():g} m" if len(measured) else "nothing measured"
            raise UndecodableError(f"{found}, no pixel within {low:g} to {high:g} m")
        return np.where(valid, metres, 0).astype(np.float32)


def _numbers(path: Path) -> NDArray[Any]:
    """Return a file's numbers as they are stored."""
    data = read_bytes(path)
    try:
        if path.suffix.lower() == EXR:
            return _channel(path)
        if path.suffix.lower() == NPY:
            return np.atleast_1d(np.load(io.BytesIO(data), allow_pickle=False).squeeze())
        with open_picture(io.BytesIO(data)) as image:
            if image.format not in DEPTH_FORMATS:  # a loss that no eye sees moves a depth by metres
                raise UserError(f"{path}: a depth map as {image.format}; expected PNG, TIFF, NPY or EXR")
            image.load()
            return np.asarray(image)
    except UserError:
        raise
    except Exception as error:  # Pillow, NumPy and OpenEXR raise a dozen types for damaged files
        raise UndecodableError(f"not a readable depth map ({' '.join(str(error).split())[:100]})") from None


def _channel(path: Path) -> NDArray[Any]:
    """Return the depth channel of an EXR file: its only one, or else Z, Y, or any where all are equal."""
    import OpenEXR  # type: ignore[import-not-found]  # compiled, and only these folders need it

    with OpenEXR.File(str(path), separate_channels=True) as file:
        found = {name: np.array(channel.pixels) for name, channel in file.channels().items()}
    first = next(iter(found.values()))
    if all(pixels.shape == first.shape and np.array_equal(pixels, first, equal_nan=True) for pixels in found.values()):
        return first
    for name in DEPTH_CHANNELS:
        if name in found:
            return found[name]
    raise UserError(f"{path}: channels {', '.join(sorted(found))}; expected one, or one that is called Z or Y")


def code(value: Value) -> int:
    """Return a value, or a colour as 0xRRGGBB."""
    return value if isinstance(value, int) else value[0] << 16 | value[1] << 8 | value[2]


def named(value: int, colour: bool) -> str:
    """Return a value, or a colour as #rrggbb."""
    return f"#{value:06x}" if colour else str(value)


class Matched(NamedTuple):
    """Label files by image, the label files of no image, and the images without one, with the reason."""

    files: dict[Path, Path]
    extra: list[Path]
    missing: dict[Path, str]


def match(
    labels: LabelFiles | None,
    splits: Mapping[str, Sequence[tuple[Path, str]]],
    places: Mapping[str, Path],
    top: Path,
    base: Path,
) -> Matched:
    """Find each image's label file: same place below its folder, same name up to the ending.

    Args:
        labels: which folder and names; None for no labels.
        splits: images of each split (the second value is not used).
        places: where the images of each split lie: a folder, or its images/.
        top: what all of them lie in. Splits may have label folders of their own, else one in `base` serves all.
        base: the domain's folder.

    Raises:
        UserError: a label folder is missing, two files are of one image, one is of two, or none is of any.
    """
    result = Matched({}, [], {})
    if labels is None:
        return result
    wanted: dict[tuple[Path, Path], list[Path]] = {}
    for split, images in splits.items():
        place = places[split]
        own = (place.parent if place.name == "images" and place != base else place) / labels.folder
        key = (own, place) if own.exists() else (base / labels.folder, top)
        wanted.setdefault(key, []).extend(path for path, _ in images)
    for (folder, root), paths in wanted.items():
        if folder.suffix.lower() == coco.JSON:
            # As in a CSV file: a path below the folder, or below images/, or the bare name.
            files = {name: folder / name for name in coco.read(folder).images}
            called = {p: (p.relative_to(base).as_posix(), p.relative_to(root).as_posix(), p.name) for p in paths}
            found = {p: files[next(n for n in each if n in files)] for p, each in called.items() if files.keys() & each}
            hint = "their paths in `file_name`"
            first = paths[0].relative_to(root).as_posix() if paths else ""
        else:
            files = _by_name(folder)
            names = {path: f"{path.relative_to(root).with_suffix('').as_posix()}{labels.suffix}" for path in paths}
            found = {path: files[name] for path, name in names.items() if name in files}
            first = f"{names[paths[0]]}.png" if paths else ""
            hint = "names that differ in more than their ending"
        if twice := [file for file, count in Counter(found.values()).items() if count > 1]:
            named_so = " and ".join(
                path.relative_to(base).as_posix() for path, file in found.items() if file == twice[0]
            )
            raise UserError(f"{folder}: {twice[0].name} stands for {named_so}; expected {hint}")
        if paths and not found:
            raise UserError(f"{folder}: none of {len(paths)} images has its label here, {first} for one")
        used = set(found.values())
        result.files.update(found)
        result.extra.extend(path for path in files.values() if path not in used)
        lacking = f"no image in {folder.name}" if folder.is_file() else f"no file in {folder.name}/"
        result.missing.update({path: lacking for path in paths if path not in found})
    return result


def _by_name(folder: Path) -> dict[str, Path]:
    """Return the label files of a folder by their path in it, without the ending."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of labels; expected one file for each image")
    found, files = images_in(folder), dict[str, Path]()
    for path in (*found.images, *(path for path in found.others if path.suffix.lower() in (NPY, EXR))):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            raise UserError(f"{files[name]} and {path.name}: two label files of one name; expected one")
        files[name] = path
    return files


class Labels(NamedTuple):
    """How the label files of one image are read; a task without labels has None."""

    masks: Masks | None
    table: NDArray[np.int16] | None
    depth: Depth | None


def decode_with_labels(
    path: Path, side: int, labels: Labels, mask: Path | None, depth: Path | None, missing: str, **options: Any
) -> Sample:
    """Decode an image to its central square, with its label files.

    Args:
        path: the image.
        side: R in pixels.
        labels: how to read the files.
        mask, depth: the files; None where the image has none, which makes it unusable if the task has labels.
        missing: why an image cannot be used that lacks one.
        options: of `decode_file`.

    Raises:
        UndecodableError: a file is missing or damaged, or no pixel of a label counts in the square.
        UserError: a label file has another size, or values that cannot be labels.
    """
    if missing:
        raise UndecodableError(missing)
    sample = decode_file(path, side, **options)
    if mask is not None and labels.masks is not None and labels.table is not None:
        classes = _label(labels.masks.read, mask, path, side)
        found = labels.table[classes].astype(np.uint8)
        if (found == IGNORE).all():
            raise UndecodableError(f"its mask {mask.name}: no pixel of the central square counts, all are ignored")
        sample = dataclasses.replace(sample, segmentation=found)
    if depth is not None and labels.depth is not None:
        metres = _label(labels.depth.read, depth, path, side)
        if not metres.any():
            raise UndecodableError(f"its depth map {depth.name}: no valid pixel in the central square")
        sample = dataclasses.replace(sample, depth=metres)
    return sample


def _label(read: Any, label: Path, image: Path, side: int) -> NDArray[Any]:
    """Return the central square of an image's label file, turned as the image's EXIF tag says: [R, R].

    Labels are on the stored pixel grid, or, from programs that turn images first, on that of the upright image.
    """
    try:
        values: NDArray[Any] = read(label)
    except UndecodableError as error:
        raise UndecodableError(f"its label {label.name}: {error}") from None
    with open_picture(image) as header:
        width, height = header.size
        orientation = header.getexif().get(ORIENTATION, 1)
        if header.format == "TIFF":  # whose size Pillow gives as it will be when it is turned
            width, height = header.tag_v2[WIDTH], header.tag_v2[HEIGHT]  # type: ignore[attr-defined]
    swapped = orientation in (5, 6, 7, 8)
    if values.shape == (height, width):
        values = turned(values, orientation)
    elif not (swapped and values.shape == (width, height)):
        raise UserError(
            f"{label}: {values.shape[1]}×{values.shape[0]} pixels; expected {width}×{height}, as its image has"
        )
    return resize_nearest(values, square_box(values.shape[1], values.shape[0]), side)


def turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return a map [H, W] turned as an EXIF orientation (1 to 8) says."""
    if orientation in (5, 7):
        values = values.T
    if orientation in (2, 4):
        values = np.flip(values, 1 if orientation == 2 else 0)
    return np.rot90(values, {3: 2, 6: -1, 7: 2, 8: 1}.get(orientation, 0))
