"""Meshes are read from three formats and simplified without losing their shape."""

from __future__ import annotations

import numpy as np
import pytest

from lowdata_cpt.data.tabletop.meshes import Mesh, read_mesh, simplify
from lowdata_cpt.data.tabletop.shards import crop, halve, visible


def sphere(n: int) -> Mesh:
    """A latitude-longitude sphere of radius 1 with 2 n² faces."""
    polar, azimuth = np.meshgrid(np.linspace(0, np.pi, n + 1), np.linspace(0, 2 * np.pi, n + 1), indexing="ij")
    points = np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], -1)
    at = np.arange((n + 1) ** 2).reshape(n + 1, n + 1)
    corners = [at[:-1, :-1], at[1:, :-1], at[1:, 1:], at[:-1, 1:]]
    faces = np.concatenate([np.stack([corners[i] for i in side], -1).reshape(-1, 3) for side in ((0, 1, 2), (0, 2, 3))])
    uv = np.stack([azimuth / (2 * np.pi), polar / np.pi], -1)
    return Mesh(points.reshape(-1, 3).astype(np.float32), faces.astype(np.int32), uv.reshape(-1, 2).astype(np.float32))


def test_a_simplified_sphere_is_a_sphere_with_outward_normals() -> None:
    mesh = sphere(80)
    small = simplify(mesh, 3000)
    assert 800 < len(small.faces) <= 3000
    assert small.uv is not None
    assert small.normals is not None
    radius = np.linalg.norm(small.points, axis=1)
    assert radius.min() > 0.97
    assert radius.max() <= 1.0001
    outward = (small.normals * small.points).sum(1) / radius
    assert np.quantile(outward, 0.01) > 0.8


def test_a_small_mesh_keeps_its_faces() -> None:
    mesh = sphere(6)
    simple = simplify(mesh, 3000)
    # The poles' triangles have no area and go.
    assert len(simple.faces) == 2 * 36 - 12


def test_texture_seams_stay() -> None:
    """The sphere's seam joins u = 0 to u = 1; merging across it would smear the whole texture into a strip."""
    small = simplify(sphere(80), 3000)
    assert small.uv is not None
    across = np.ptp(small.uv[small.faces][:, :, 0], axis=1)
    away = np.abs(small.points[small.faces].mean(1)[:, 2]) < 0.9
    assert (across[away] < 0.25).mean() > 0.97


def test_reads_obj_polygons_as_fans() -> None:
    text = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nf 1/1 2/2 3/3 4/4\n"
    mesh = read_mesh(text.encode(), ".obj")
    assert mesh.faces.shape == (2, 3)
    assert mesh.uv is not None
    np.testing.assert_array_equal(mesh.points[mesh.faces[1]][:, :2], [[0, 0], [1, 1], [0, 1]])
    np.testing.assert_array_equal(mesh.uv[mesh.faces[1]], [[0, 1], [1, 0], [0, 0]])


def test_reads_binary_stl_and_msh() -> None:
    triangle = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0]], "<f4")
    stl = bytes(80) + np.uint32(1).tobytes() + np.zeros(3, "<f4").tobytes() + triangle.tobytes() + bytes(2)
    np.testing.assert_array_equal(read_mesh(stl, ".stl").points, triangle)
    uv = np.array([[0, 0], [1, 0], [0, 1]], "<f4")
    counts = np.array([3, 3, 3, 1], "<i4")
    faces = np.array([0, 1, 2], "<i4")
    msh = b"".join(part.tobytes() for part in (counts, triangle, np.ones((3, 3), "<f4"), uv, faces))
    mesh = read_mesh(msh, ".msh")
    np.testing.assert_array_equal(mesh.points, triangle)
    np.testing.assert_array_equal(mesh.uv, uv)
    np.testing.assert_array_equal(mesh.faces, [[0, 1, 2]])


def test_other_files_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a"):
        read_mesh(b"", ".ply")
    with pytest.raises(ValueError, match="buffer"):
        read_mesh(b"\x01\x00\x00\x00", ".msh")


def test_halving_averages_and_rounds() -> None:
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, :2] = [[[1, 2, 255]] * 2, [[2, 2, 255]] * 2]
    np.testing.assert_array_equal(halve(image), [[[2, 2, 255], [0, 0, 0]]])


def test_only_instances_with_enough_pixels_get_a_crop() -> None:
    instances = np.zeros((224, 224), np.uint8)
    instances[:20, :20] = 1
    instances[100:121, :20] = 3
    assert visible(instances) == [3]
    assert visible(instances[::2, ::2]) == [3]


def test_a_crop_is_square_around_its_object_and_stays_in_the_picture() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    mask = np.zeros((100, 100), bool)
    mask[0:20, 80:100] = True
    image[mask] = 200
    cut = crop(image, mask, 26)
    assert cut.shape == (26, 26, 3)
    # The object's 20 px fill the upper right of the 26 px that the margin gives.
    assert (cut[:19, 7:] == 200).all()
    assert (cut[21:, :] == 0).all()
    assert (cut[:, :5] == 0).all()
