"""One folder with image files of every kind, and what lies beside them: each is read rightly, or listed with a reason.

A kind is a row of a table here; what Pillow does not write is made byte by byte (`kinds`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from lowdata_cpt.data.store import Store
from tests.data import kinds
from tests.data.kinds import BLACK, COLOURS, GREYS, SIDE, WHITE, Colour, chunk, frames, grey, png, rgb, saved, tiff
from tests.data.own import listed, opened

pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF")
ROOT = Path(__file__).resolve().parents[2]
INDEXED: dict[str, Any] = {"colour": 3, "palette": COLOURS}
PAGES = "3 pages; the first is used"
WIDE = [257 * level for level in GREYS]


class Kind(NamedTuple):
    """A file that is used: its bytes, the colours of its quadrants, and how far decoded ones may be off."""

    data: bytes
    colours: tuple[Colour, ...] = COLOURS
    off: int = 0
    noted: str = ""


def clear(image: Image.Image, kind: str) -> bytes:
    """The picture with its first quadrant transparent."""
    alpha = Image.fromarray(kinds.quadrants((0, 255, 255, 255))[..., 0].astype(np.uint8))
    image = image.copy()
    image.putalpha(alpha)
    return saved(image, kind, **({"lossless": True} if kind == "WEBP" else {}))


ON_WHITE = (WHITE, *COLOURS[1:])
GREY_ON_WHITE = (WHITE, *grey(*GREYS)[1:])
USED: dict[str, Kind] = {
    "grey1.png": Kind(png((0, 1, 1, 0), 1, 0), (BLACK, WHITE, WHITE, BLACK)),
    "grey2.png": Kind(png((0, 1, 2, 3), 2, 0), grey(*GREYS)),
    "grey4.png": Kind(png((0, 5, 10, 15), 4, 0), grey(*GREYS)),
    "grey8.png": Kind(png(GREYS, 8, 0), grey(*GREYS)),
    "grey16.png": Kind(png(WIDE, 16, 0), grey(*GREYS)),
    "rgb8.png": Kind(png(COLOURS, 8, 2)),
    "rgb16.png": Kind(png(257 * np.asarray(COLOURS), 16, 2)),
    "palette1.png": Kind(png((0, 1, 1, 0), 1, 3, palette=COLOURS[:2]), (*COLOURS[:2], COLOURS[1], COLOURS[0])),
    "palette2.png": Kind(png((0, 1, 2, 3), 2, **INDEXED)),
    "palette4.png": Kind(png((0, 1, 2, 3), 4, **INDEXED)),
    "palette8.png": Kind(png((0, 1, 2, 3), 8, **INDEXED)),
    "palette clear.png": Kind(png((0, 1, 2, 3), 8, **INDEXED, clear=b"\0"), ON_WHITE),
    "grey8 clear.png": Kind(png(GREYS, 8, 0, clear=b"\0\0"), GREY_ON_WHITE),
    "grey16 clear.png": Kind(png(WIDE, 16, 0, clear=b"\0\0"), GREY_ON_WHITE),
    "rgb8 clear.png": Kind(png(COLOURS, 8, 2, clear=bytes([0, 250, 0, 10, 0, 20])), ON_WHITE),
    "grey alpha8.png": Kind(png([(g, 255 * (g > 0)) for g in GREYS], 8, 4), GREY_ON_WHITE),
    "grey alpha16.png": Kind(png([(g, 65535 * (g > 0)) for g in WIDE], 16, 4), GREY_ON_WHITE),
    "rgb alpha8.png": Kind(png([(*c, 255 * (i > 0)) for i, c in enumerate(COLOURS)], 8, 6), ON_WHITE),
    "rgb alpha16.png": Kind(
        png([(*(257 * v for v in c), 65535 * (i > 0)) for i, c in enumerate(COLOURS)], 16, 6), ON_WHITE
    ),
    "interlaced1.png": Kind(png((0, 1, 1, 0), 1, 0, adam7=True), (BLACK, WHITE, WHITE, BLACK)),
    "interlaced8.png": Kind(png(COLOURS, 8, 2, adam7=True)),
    "interlaced16.png": Kind(png(WIDE, 16, 0, adam7=True), grey(*GREYS)),
    "interlaced palette.png": Kind(png((0, 1, 2, 3), 4, **INDEXED, adam7=True)),
    "animated.apng": Kind(frames("PNG"), noted=PAGES),
    "baseline.jpg": Kind(saved(rgb(), "JPEG", quality=95), off=8),
    "progressive.jpg": Kind(saved(rgb(), "JPEG", quality=95, progressive=True), off=8),
    "grey.jpeg": Kind(saved(rgb().convert("L"), "JPEG", quality=95), grey(*(83, 151, 50, 215)), off=4),
    "cmyk.jpg": Kind(saved(rgb().convert("CMYK"), "JPEG", quality=95), off=12),
    "rest after its end.jpg": Kind(saved(rgb(), "JPEG", quality=95) + b"more" * 99, off=8),
    "with a preview.jpg": Kind(frames("MPO", quality=95), off=8),
    **{f"turned {i}.jpg": Kind(kinds.turned(i), off=8) for i in range(1, 9)},
    "plain.tif": Kind(tiff(COLOURS, 8, 2)),
    "tiles.tif": Kind(tiff(COLOURS, 8, 2, tile=16)),
    "planes.tif": Kind(tiff(COLOURS, 8, 2, planar=True)),
    "white is zero.tif": Kind(tiff([255 - g for g in GREYS], 8, 0), grey(*GREYS)),
    "big endian.tif": Kind(tiff(WIDE, 16, order=">"), grey(*GREYS)),
    "little endian.tif": Kind(tiff(WIDE, 16), grey(*GREYS)),
    "twelve bits.tif": Kind(tiff([g * 4095 // 255 for g in GREYS], 12), grey(*GREYS)),
    "lzw.tiff": Kind(saved(rgb(), "TIFF", compression="tiff_lzw")),
    "deflate.tiff": Kind(saved(rgb(), "TIFF", compression="tiff_adobe_deflate")),
    "runs.tiff": Kind(saved(rgb(), "TIFF", compression="packbits")),
    "fax.tiff": Kind(
        saved(
            Image.fromarray(kinds.quadrants((0, 255, 255, 0))[..., 0].astype(np.uint8)).convert("1"),
            "TIFF",
            compression="group4",
        ),
        (BLACK, WHITE, WHITE, BLACK),
    ),
    "cmyk.tif": Kind(saved(rgb().convert("CMYK"), "TIFF")),
    "jpeg inside.tif": Kind(saved(rgb(), "TIFF", compression="jpeg", quality=95), off=8),
    "stack.tif": Kind(frames("TIFF"), noted=PAGES),
    "plain.bmp": Kind(saved(rgb(), "BMP")),
    "indexed.bmp": Kind(saved(rgb().quantize(4), "BMP"), off=4),
    "565.bmp": Kind(kinds.bmp565(), off=8),
    "still.gif": Kind(saved(rgb(), "GIF"), off=4),
    "clear.gif": Kind(clear(rgb(), "GIF"), ON_WHITE, off=4),
    "animated.gif": Kind(frames("GIF"), off=4, noted=PAGES),
    "lossy.webp": Kind(saved(rgb(), "WEBP", quality=95), off=12),
    "lossless.webp": Kind(saved(rgb(), "WEBP", lossless=True)),
    "clear.webp": Kind(clear(rgb(), "WEBP"), ON_WHITE),
    "animated.webp": Kind(frames("WEBP", lossless=True), noted=PAGES),
    "text.ppm": Kind(b"P3 2 2 255 " + b" ".join(b"%d" % v for colour in COLOURS for v in colour), off=60),
    "wide.pgm": Kind(b"P5 32 32 65535 " + kinds.quadrants(WIDE).astype(">u2").tobytes(), grey(*GREYS)),
    "film.tga": Kind(saved(rgb(), "TGA", compression="tga_rle")),
    "paint.pcx": Kind(saved(rgb(), "PCX")),
    "quick.qoi": Kind(saved(rgb(), "QOI")),
    "old.sgi": Kind(saved(rgb(), "SGI")),
}

NAMES = (
    "two  blanks.png", "it's \"quoted\".png", "semi;colon $(echo) `x` &.png", "line\nbreak.png", "return\rhere.png",
    "tab\there.png", "-leading.png", "=SUM(A1).png", "comma,comma.png", "stars*[a]?.png", "back\\slash.png",
    "UPPER.PNG", "two.ends.jpg.png", "größe 大きさ.png", "é composed.png", "é decomposed.png", "NA.png", "%s {n} #.png",
    "l" * 250 + ".png",
)  # fmt: skip
"""Names as they are in the folder; each file is a picture of its own."""

NO_PICTURE = "not an image that Pillow can read"
ANNOTATED = chunk(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(50_000_000)))
BAD: dict[str, tuple[bytes, str]] = {
    "empty.png": (b"", "empty file"),
    "words.png": (b"these are words", NO_PICTURE),
    "page.jpg": (b"<!DOCTYPE html><title>404</title>", NO_PICTURE),
    "archive.png": (b"PK\x05\x06" + bytes(18), NO_PICTURE),
    "picture of a telephone.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", NO_PICTURE),
    "document.tif": (b"%PDF-1.7\n", NO_PICTURE),
    "table.tif": (b"\x89HDF\r\n\x1a\n" + bytes(500), NO_PICTURE),
    "drawing.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", NO_PICTURE),
    "header only.png": (png(COLOURS, 8, 2)[:33], NO_PICTURE),
    "cut.png": (png(COLOURS, 8, 2)[:-40], "damaged image ("),
    "cut.jpg": (saved(rgb(), "JPEG")[:-60], "damaged image ("),
    "cut.tif": (tiff(COLOURS, 8, 2)[:-300], NO_PICTURE),
    "cut.bmp": (saved(rgb(), "BMP")[:2000], "damaged image ("),
    "cut.gif": (saved(rgb(), "GIF")[:-30], "damaged image ("),
    "cut.webp": (saved(rgb(), "WEBP")[:-30], "damaged image ("),
    "float.tif": (saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "floating-point image"),
    "signed.tif": (tiff((0, 65535, 5, 7), 16, sample_format=2), "I image with values -1 to 7, beyond 16 bits"),
    "declared.png": (kinds.huge_png(60_000, 60_000), "3600 megapixels, more than `max_pixels` (179)"),
    "declared more.png": (kinds.huge_png(2**31 - 1, 2**31 - 1), "4611686014132 megapixels"),
    "unkept promise.png": (kinds.huge_png(10_000, 10_000), "damaged image ("),
    "bomb in a remark.png": (png(COLOURS, 8, 2, more=ANNOTATED), "damaged image ("),
    "declared.gif": (b"GIF89a" + b"\xff" * 4 + bytes(3) + b"," + bytes(4) + b"\xff" * 4 + bytes(2) + b";", "4295 meg"),
}  # fmt: skip
BESIDE = ("notes.txt", "scan.heic", "paper.pdf", "features.h5", "film.mp4", "drawing.svg", "sky.fits", "no ending")
CIRCLE = "a link to a folder that is read already, or that it lies in"
SHAPES = {"one pixel.png": (1, 1), "column.png": (1, 5000), "row.png": (5000, 1), "odd.png": (31, 33)}


def fill(folder: Path) -> None:
    """Write every file."""
    folder.mkdir()
    for name, kind in USED.items():
        (folder / name).write_bytes(kind.data)
    for name, (data, _) in BAD.items():
        (folder / name).write_bytes(data)
    for name in BESIDE:
        (folder / name).write_bytes(b"x")
    for number, name in enumerate(NAMES):
        Image.new("RGB", (8, 8), (number, 200, 0)).save(folder / name, "PNG")
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/kl\xe4rchen \xff.png"))
    odd.write_bytes(png(COLOURS, 8, 2, more=chunk(b"tEXt", b"a\0b")))
    for number, (name, size) in enumerate(SHAPES.items()):
        Image.new("RGB", size, (number, 100, 50)).save(folder / name)
    (folder / "again.png").write_bytes(USED["rgb8.png"].data)
    (folder / "linked.png").symlink_to("rgb8.png")
    (folder / "dangling.png").symlink_to("nowhere.png")
    (folder / "nothing but zeros.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.png")
    (folder / "itself.png").symlink_to("itself.png")
    (folder / "circle").symlink_to(folder)
    (folder / "of 1.png").mkdir()
    (folder / "of 1.png/inside.png").write_bytes(png(COLOURS, 8, 2, more=chunk(b"tEXt", b"c\0d")))


ALSO_LISTED = {
    **{name: kind.noted for name, kind in USED.items() if kind.noted},
    **dict.fromkeys(BESIDE, "no image file name"),
    **dict.fromkeys(("pipe.png", "nothing but zeros.png"), "a device, pipe or socket"),
    **dict.fromkeys(("linked.png", "rgb8.png"), "left out: the same bytes as again.png"),
    "circle": CIRCLE,
    "dangling.png": "cannot be read (No such file or directory)",
    "itself.png": "cannot be read (Too many levels of symbolic links)",
}
ESCAPED = {name: re.sub(r"[\n\r\t]", lambda found: f"\\x{ord(found[0]):02x}", name) for name in NAMES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("kinds") / "images"
    fill(made)
    return made


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    return opened(folder, resolution=SIDE, max_quarantined=0.5)


def test_what_cannot_be_used_is_listed_with_its_reason_and_nothing_else(store: Store) -> None:
    found = listed(store)
    assert {name: found[name] for name in ALSO_LISTED} == ALSO_LISTED
    assert sorted(found) == sorted({*ALSO_LISTED, *BAD})
    wrong = {name: found[name] for name, (_, reason) in BAD.items() if not found[name].startswith(reason)}
    assert not wrong


def test_everything_else_is_used_once_under_its_name(store: Store) -> None:
    others = {"again.png", "kl\\xe4rchen \\xff.png", "of 1.png/inside.png"}
    wanted = {*USED, *SHAPES, *ESCAPED.values(), *others} - {"rgb8.png"}
    assert sorted(store.rows("pool")["id"]) == sorted(wanted)
    assert len(store.images("pool")) == len(wanted)


def test_colours_range_and_orientation_are_right(store: Store) -> None:
    pixels = dict(zip(store.rows("pool")["id"], store.images("pool"), strict=True))
    pixels["rgb8.png"] = pixels["again.png"]
    middles = (SIDE // 4, 3 * SIDE // 4)
    off = {}
    for name, kind in USED.items():
        found = np.array([pixels[name][y, x] for y in middles for x in middles], int)
        if np.abs(found - kind.colours).max() > kind.off:
            off[name] = found.tolist()
    for number, name in enumerate(NAMES):
        if not (pixels[ESCAPED[name]] == (number, 200, 0)).all():
            off[name] = pixels[ESCAPED[name]][0, 0].tolist()
    for number, name in enumerate(SHAPES):
        if not (pixels[name] == (number, 100, 50)).all():
            off[name] = pixels[name][0, 0].tolist()
    assert not off


PEAK = """
import sys
from pathlib import Path
from tests.data.own import opened
opened(Path(sys.argv[1]), resolution=32, max_quarantined=0.5)
print("peak", next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says the largest memory of a process")
def test_files_that_promise_gigabytes_take_no_memory(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to(folder)
    command = [sys.executable, "-W", "ignore", "-c", PEAK, str(tmp_path / "images")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    kilobytes = int(done.stdout.split()[-1])
    assert kilobytes < 300_000, f"{kilobytes / 1000:.0f} MB"
