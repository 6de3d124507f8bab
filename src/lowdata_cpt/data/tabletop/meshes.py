"""Read triangle meshes (.msh, .obj, .stl) and simplify them to what a picture of a few hundred pixels can show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GRIDS = (16, 20, 26, 32, 38, 46, 56, 68, 84, 104, 128, 160)
FINEST = 1 << 14
UV_CELLS = 12


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh whose texture coordinates and normals belong to its points.

    Attributes:
        points: float32 [V, 3] in the file's units.
        faces: int32 [F, 3], rows of `points`.
        uv: float32 [V, 2] texture coordinates, or None.
        normals: float32 [V, 3] unit vectors, or None.
    """

    points: NDArray[np.float32]
    faces: NDArray[np.int32]
    uv: NDArray[np.float32] | None = None
    normals: NDArray[np.float32] | None = None


def read_mesh(data: bytes, suffix: str) -> Mesh:
    """Read the bytes of one .msh, .obj or binary .stl mesh; `suffix` says which.

    Raises:
        ValueError: they are not such a mesh.
    """
    readers = {".msh": _read_msh, ".obj": _read_obj, ".stl": _read_stl}
    if suffix.lower() not in readers:
        raise ValueError(f"expected a .msh, .obj or .stl mesh, got {suffix!r}")
    return readers[suffix.lower()](data)


def _read_msh(data: bytes) -> Mesh:
    """MuJoCo's legacy binary: four counts, then points, normals, texture coordinates and faces."""
    n_points, n_normals, n_uv, n_faces = (int(n) for n in np.frombuffer(data, "<i4", 4))
    values = np.frombuffer(data, "<f4", 3 * n_points + 3 * n_normals + 2 * n_uv, offset=16)
    faces = np.frombuffer(data, "<i4", 3 * n_faces, offset=16 + values.nbytes).reshape(-1, 3)
    points = values[: 3 * n_points].reshape(-1, 3)
    if n_uv == 0:
        return Mesh(points, faces)
    return Mesh(points, faces, values[3 * (n_points + n_normals) :].reshape(-1, 2))


def _read_obj(data: bytes) -> Mesh:
    points: list[list[float]] = []
    uv: list[list[float]] = []
    faces: list[list[int]] = []
    uv_faces: list[list[int]] = []
    for line in data.decode(errors="replace").splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "v":
            points.append([float(word) for word in words[1:4]])
        elif words[0] == "vt":
            # The file counts v upwards, the renderer downwards.
            uv.append([float(words[1]), 1.0 - float(words[2])])
        elif words[0] == "f":
            corners = [word.split("/") for word in words[1:]]
            for second in range(1, len(corners) - 1):
                fan = [corners[0], corners[second], corners[second + 1]]
                faces.append([_position(corner[0], len(points)) for corner in fan])
                if len(fan[0]) > 1 and fan[0][1]:
                    uv_faces.append([_position(corner[1], len(uv)) for corner in fan])
    corners = np.array(points, np.float32)[np.array(faces).ravel()]
    textured = len(uv_faces) == len(faces)
    own = np.array(uv, np.float32)[np.array(uv_faces).ravel()] if textured else None
    return Mesh(corners, np.arange(len(corners), dtype=np.int32).reshape(-1, 3), own)


def _position(word: str, count: int) -> int:
    """OBJ counts from 1, and from the end when negative."""
    number = int(word)
    return number - 1 if number > 0 else count + number


def _read_stl(data: bytes) -> Mesh:
    count = int(np.frombuffer(data, "<u4", 1, offset=80)[0])
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    corners = np.frombuffer(data, record, count, offset=84)["corners"].reshape(-1, 3)
    return Mesh(np.ascontiguousarray(corners), np.arange(3 * count, dtype=np.int32).reshape(-1, 3))


def simplify(mesh: Mesh, max_faces: int) -> Mesh:
    """Merge points by vertex clustering (Rossignac and Borrel, 1993) on the finest grid that gives few enough faces.

    Texture coordinates are merged only where both their point and their place in the texture are near, so
    that the seams of the texture stay.
    """
    low = mesh.points.min(0)
    span = float((mesh.points.max(0) - low).max()) or 1.0
    fine = _cluster(mesh, low, span / FINEST)
    if len(fine.faces) <= max_faces:
        return fine
    cells = list(GRIDS)
    while cells:
        middle = len(cells) // 2
        tried = _cluster(mesh, low, span / cells[middle])
        if len(tried.faces) <= max_faces:
            fine, cells = tried, cells[middle + 1 :]
        else:
            cells = cells[:middle]
    return fine if len(fine.faces) <= max_faces else _cluster(mesh, low, span / GRIDS[0])


def _cluster(mesh: Mesh, low: NDArray[np.float32], cell: float) -> Mesh:
    grid = np.floor((mesh.points - low) / cell).astype(np.int64)
    points, point_of = _means(_key(grid), mesh.points)
    faces = point_of[mesh.faces]
    kept = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    # Thin walls leave the same triangle many times; one of each orientation is enough.
    turned = np.take_along_axis(faces, (np.arange(3) + faces.argmin(1)[:, None]) % 3, 1).astype(np.int64)
    first = np.zeros(len(faces), bool)
    first[np.unique(_key(turned), return_index=True)[1]] = True
    kept &= first
    # Both sides of a thin wall share their place, so normals are merged within a side (an octant) only. They
    # come from all the original faces, by area, not from the few that are left.
    edges = [mesh.points[mesh.faces[:, corner]] - mesh.points[mesh.faces[:, 0]] for corner in (1, 2)]
    areas = np.cross(edges[0], edges[1])
    octant = (areas > 0).astype(np.int64) @ np.array([1, 2, 4])
    side = np.column_stack([np.repeat(octant, 3), np.zeros(faces.size, np.int64), faces.ravel()])
    normals, side_of = _means(_key(side), np.repeat(areas, 3, 0))
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    corners = side_of.reshape(-1, 3)[kept].ravel().astype(np.int64)
    place = np.zeros((len(corners), 2), np.int64)
    if mesh.uv is not None:
        corner_uv = mesh.uv[mesh.faces[kept].ravel()]
        place = np.floor(corner_uv * UV_CELLS).astype(np.int64)
        place -= place.min(0, initial=0)
    key = _key(np.column_stack([place, corners]))
    _, example, corner_of = np.unique(key, return_index=True, return_inverse=True)
    return Mesh(
        points[faces[kept].ravel()[example]],
        corner_of.astype(np.int32).reshape(-1, 3),
        None if mesh.uv is None else _means(key, corner_uv)[0],
        normals[corners[example]],
    )


def _key(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one integer a row of three non-negative integers below 2^21."""
    key: NDArray[np.int64] = (rows[:, 0] << 42) | (rows[:, 1] << 21) | rows[:, 2]
    return key


def _means(key: NDArray[np.int64], values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return the mean of `values` for each distinct key, and the mean's row for each value."""
    _, group = np.unique(key, return_inverse=True)
    count = np.bincount(group)
    means = np.column_stack([np.bincount(group, column) / count for column in values.T.astype(np.float64)])
    return means.astype(np.float32), group.astype(np.int32)
