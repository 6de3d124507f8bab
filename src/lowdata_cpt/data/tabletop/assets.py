"""Turn an object's MJCF file into coloured triangle meshes that stand upright on the origin."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.tabletop.meshes import Mesh, read_mesh, simplify

MAX_FACES = 3000
VISUAL_GROUP = 1
NEARLY_CLEAR = 0.2
SIDES = 16


@dataclass(frozen=True)
class Part:
    """One visible part of an object: its mesh in metres, its colour and perhaps a texture file."""

    mesh: Mesh
    rgb: tuple[float, float, float]
    texture: Path | None


def read_object(path: Path, up: str) -> list[Part]:
    """Read the visible parts of an MJCF object, turned upright, centred and standing on z = 0.

    Doors and drawers stay shut. Parts that are nearly clear are left out and the others are opaque, so that
    every pixel belongs to one surface.

    Raises:
        UserError: the file or one of its meshes is missing, or nothing in it is visible.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected the LIBERO assets of config/packages.txt")
    spec = mujoco.MjSpec.from_string(_clean_xml(path))
    turn = {
        "z": np.eye(3),
        "y": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
        "x": np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]]),
    }
    parts = _parts(spec, spec.worldbody, path.parent, turn[up], np.zeros(3))
    if not parts:
        raise UserError(f"{path}: no visible geometry")
    corners = np.concatenate([part.mesh.points for part in parts])
    low, high = corners.min(0), corners.max(0)
    origin = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]], np.float32)
    return [replace(part, mesh=replace(part.mesh, points=part.mesh.points - origin)) for part in parts]


def _clean_xml(path: Path) -> str:
    """Return the XML without what MuJoCo refuses: a texture's name used twice, an element of another program."""
    root = ElementTree.parse(path).getroot()
    for body in root.iter("body"):
        for region in body.findall("region"):
            body.remove(region)
    for asset in root.iter("asset"):
        named = {texture.get("name"): texture for texture in asset.findall("texture")}
        for texture in asset.findall("texture"):
            if texture is not named[texture.get("name")]:
                asset.remove(texture)
    return ElementTree.tostring(root, encoding="unicode")


def _parts(spec: Any, body: Any, folder: Path, turn: NDArray[np.float64], origin: NDArray[np.float64]) -> list[Part]:
    parts = []
    for geom in body.geoms:
        part = _part(spec, geom, folder) if geom.group == VISUAL_GROUP else None
        if part is not None:
            parts.append(replace(part, mesh=_moved(part.mesh, turn @ _rotation(geom, spec), origin + turn @ geom.pos)))
    for child in body.bodies:
        parts += _parts(spec, child, folder, turn @ _rotation(child, spec), origin + turn @ child.pos)
    return parts


def _moved(mesh: Mesh, turn: NDArray[np.float64], origin: NDArray[np.float64]) -> Mesh:
    normals = None if mesh.normals is None else (mesh.normals @ turn.T).astype(np.float32)
    return replace(mesh, points=(mesh.points @ turn.T + origin).astype(np.float32), normals=normals)


def _rotation(element: Any, spec: Any) -> NDArray[np.float64]:
    quaternion = np.array(element.quat, np.float64)
    if element.alt.type == mujoco.mjtOrientation.mjORIENTATION_EULER:
        angles = np.array(element.alt.euler, np.float64)
        mujoco.mju_euler2Quat(quaternion, np.radians(angles) if spec.compiler.degree else angles, "xyz")
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion / np.linalg.norm(quaternion))
    return matrix.reshape(3, 3)


def _part(spec: Any, geom: Any, folder: Path) -> Part | None:
    material = next((item for item in spec.materials if item.name == geom.material), None)
    own_colour = not np.allclose(geom.rgba, [0.5, 0.5, 0.5, 1.0])
    rgba = geom.rgba if material is None or own_colour else material.rgba
    if rgba[3] < NEARLY_CLEAR:
        return None
    texture = _texture(spec, material, folder)
    return Part(_mesh(spec, geom, folder), (float(rgba[0]), float(rgba[1]), float(rgba[2])), texture)


def _texture(spec: Any, material: Any, folder: Path) -> Path | None:
    name = next((name for name in material.textures if name), None) if material is not None else None
    if name is None:
        return None
    texture = next(item for item in spec.textures if item.name == name)
    path: Path = folder / (texture.file or next(file for file in texture.cubefiles if file))
    return path


def _mesh(spec: Any, geom: Any, folder: Path) -> Mesh:
    kinds = mujoco.mjtGeom
    if geom.type == kinds.mjGEOM_MESH:
        item = next(mesh for mesh in spec.meshes if mesh.name == geom.meshname)
        path = folder / item.file
        try:
            mesh = _simple_mesh(path.read_bytes(), path.suffix)
        except (OSError, ValueError, IndexError) as error:
            raise UserError(f"{path}: not a readable mesh ({error})") from None
        return replace(mesh, points=mesh.points * np.array(item.scale, np.float32))
    if geom.type == kinds.mjGEOM_BOX:
        return _prism(np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * geom.size[:2], geom.size[2])
    if geom.type in (kinds.mjGEOM_CYLINDER, kinds.mjGEOM_CAPSULE):
        angle = np.arange(SIDES) * 2 * np.pi / SIDES
        return _prism(np.column_stack([np.cos(angle), np.sin(angle)]) * geom.size[0], geom.size[1])
    raise UserError(f"{folder}: visible geometry of type {geom.type}, expected a mesh, box, cylinder or capsule")


@lru_cache(maxsize=64)
def _simple_mesh(data: bytes, suffix: str) -> Mesh:
    """Many objects are recoloured twins: equal files are simplified once."""
    return simplify(read_mesh(data, suffix), MAX_FACES)


def _prism(outline: NDArray[np.float64], half_height: float) -> Mesh:
    """Return the prism over a convex polygon [N, 2], counter-clockwise."""
    n = len(outline)
    ring = np.arange(n)
    after = (ring + 1) % n
    points = np.concatenate([np.column_stack([outline, np.full(n, z)]) for z in (-half_height, half_height)])
    sides = [np.column_stack([ring, after, after + n]), np.column_stack([ring, after + n, ring + n])]
    fan = np.column_stack([np.zeros(n - 2, int), ring[1:-1], ring[2:]])
    faces = np.concatenate([*sides, fan[:, ::-1], fan + n])
    # Faces share no points: the edges of a prism are sharp.
    return Mesh(
        points[faces].reshape(-1, 3).astype(np.float32), np.arange(3 * len(faces), dtype=np.int32).reshape(-1, 3)
    )
