from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.decode import (
    IGNORE,
    UndecodableError,
    check_depth,
    class_table,
    decode_file,
    decode_masked,
    read_ids,
    read_image,
    resize_image,
    resize_nearest,
    square_box,
    to_classes,
)
from tests.data.kinds import saved


def rgb(seed: int = 0, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_rgb_is_exact() -> None:
    assert np.array_equal(np.asarray(read_image(saved(Image.fromarray(rgb())))), rgb())


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    assert np.asarray(read_image(saved(Image.fromarray(values))))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_exif_orientation_is_applied_only_without_masks() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: 90° clockwise to show
    data = saved(Image.fromarray(rgb()), "PNG", exif=exif)
    assert np.array_equal(np.asarray(read_image(data)), np.rot90(rgb(), -1))
    assert np.array_equal(np.asarray(read_image(data, orient=False)), rgb())


@given(st.binary(max_size=300))
@settings(max_examples=50, deadline=None)
def test_noise_never_raises_anything_else(data: bytes) -> None:
    with pytest.raises(UndecodableError):
        read_image(b"\x89PNG\r\n\x1a\n" + data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty file"), (b"these are words", "not an image"), (None, "cannot be read"), ("float", "floating-point")],
)
def test_reasons(data: Any, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    if data == "float":
        data = saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UndecodableError, match=reason):
        decode_file(path, 16)


def test_central_square_of_a_wide_image() -> None:
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 200
    square = resize_image(Image.fromarray(pixels), square_box(30, 10), 5)
    assert square.shape == (5, 5, 3)
    assert (square[:, 1:-1] == 200).all()
    assert resize_image(Image.fromarray(pixels), square_box(30, 10, "stretch"), 15)[7, 1, 0] == 0


def test_shrinking_is_antialiased() -> None:
    checkers = np.zeros((64, 64, 3), np.uint8)
    checkers[::2, ::2] = checkers[1::2, 1::2] = 255
    assert np.ptp(resize_image(Image.fromarray(checkers), square_box(64, 64), 8).astype(int)) < 20


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_nearest_takes_the_pixel_under_the_centre_as_pillow_does(height: int, width: int, side: int) -> None:
    ids = np.arange(height * width, dtype=np.int32).reshape(height, width)
    box = square_box(width, height)
    expected = np.asarray(Image.fromarray(ids).resize((side, side), Image.Resampling.NEAREST, box=box))
    # A centre on the line between two pixels may go either way.
    edge = (np.arange(side) + 0.5) / side * (box[2] - box[0])
    clear_x = np.abs((edge + box[0]) - np.round(edge + box[0])) > 1e-6
    clear_y = np.abs((edge + box[1]) - np.round(edge + box[1])) > 1e-6
    taken = resize_nearest(ids, box, side)
    assert taken.shape == (side, side)
    assert np.array_equal(taken[np.ix_(clear_y, clear_x)], expected[np.ix_(clear_y, clear_x)])


def test_resampling_does_not_reach_over_the_edge_of_the_box() -> None:
    pixels = np.zeros((60, 60, 3), np.uint8)
    pixels[:10] = pixels[50:] = pixels[:, :10] = pixels[:, 50:] = 255
    assert resize_image(Image.fromarray(pixels), (10, 10, 50, 50), 8).max() == 0


def test_mask_of_a_palette_gives_indices() -> None:
    image = Image.fromarray(np.array([[3, 1]], np.uint8), "P")
    image.putpalette(list(range(12)))
    assert read_ids(saved(image)).tolist() == [[3, 1]]


def test_mask_of_sixteen_bits_keeps_ids() -> None:
    assert read_ids(saved(Image.fromarray(np.array([[0, 894]], np.uint16)))).tolist() == [[0, 894]]


def test_table_maps_ignores_and_refuses() -> None:
    table = class_table({1: 0, 2: 1}, ignored=(0,))
    assert to_classes(np.array([0, 1, 2]), table, "m").tolist() == [IGNORE, 0, 1]
    with pytest.raises(UserError, match=r"m\.png: mask value 3"):
        to_classes(np.array([1, 3]), table, "m.png")
    with pytest.raises(UserError, match="mask values -1"):
        to_classes(np.array([-1]), table, "m.png")
    assert to_classes(np.array([3]), class_table({1: 0}, ignored=None), "m").tolist() == [IGNORE]


def test_image_and_mask_stay_aligned(tmp_path: Path) -> None:
    ids = np.zeros((21, 33), np.uint8)
    ids[5:13, 9:22] = 1
    Image.fromarray(np.repeat(ids[..., None] * 255, 3, 2)).save(tmp_path / "a.png")
    Image.fromarray(ids).save(tmp_path / "m.png")
    sample = decode_masked(tmp_path / "a.png", tmp_path / "m.png", 21, class_table({0: 0, 1: 1}, ()))
    assert sample.segmentation is not None
    assert np.array_equal(sample.image[..., 0] > 127, sample.segmentation == 1)


@pytest.mark.parametrize(("scale", "said"), [(1000.0, "millimetres"), (0.001, "only")])
def test_depth_in_another_unit(scale: float, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_depth(np.array([[1.0, 4.0]]) * scale, "frame 1")


def test_depth_holes_are_zero() -> None:
    depth = check_depth(np.array([np.nan, np.inf, -1, 0, 2.5]), "frame 1")
    assert depth.tolist() == [0, 0, 0, 0, 2.5]
    assert depth.dtype == np.float32
