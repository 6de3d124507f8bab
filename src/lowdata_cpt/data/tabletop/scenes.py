"""Draw a table-top scene from a seed: what stands where, on what, in which light, seen from where."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.data.tabletop.catalogue import FLOORS, KINDS, LIGHTS, TABLES, TILES_PER_METRE, WALLS, Kind
from lowdata_cpt.data.tabletop.placement import Box, find_on_table, find_on_top

Vector = tuple[float, ...]
OBJECTS = (6, 14)
DRAWS = 3
TIGHTEST = 0.6
NEW_OBJECT = 0.4
LYING = 0.25
ON_TOP = 0.15
SHARES = np.array([kind.weight for kind in KINDS]) / sum(kind.weight for kind in KINDS)
# Splits that may show the objects held out of the others.
SPLITS_WITH_NEW_OBJECTS = ("val", "test")


@dataclass(frozen=True)
class Item:
    """One object of a scene: name, position in metres, quaternion (w, x, y, z) and tint."""

    name: str
    position: Vector
    quaternion: Vector
    tint: Vector


@dataclass(frozen=True)
class Surface:
    """A textured geom of the room: name, material, size, position, quaternion and tint."""

    name: str
    material: str
    size: Vector
    position: Vector
    quaternion: Vector
    tint: Vector


@dataclass(frozen=True)
class Light:
    """A spot light: position, direction, diffuse and ambient colour."""

    position: Vector
    direction: Vector
    diffuse: Vector
    ambient: Vector


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: position in metres, quaternion (w, x, y, z) of its axes (x right, y up, z backwards)
    and vertical field of view in degrees."""

    position: Vector
    quaternion: Vector
    fovy: float


@dataclass(frozen=True)
class Scene:
    """Everything one picture shows. `seed` made it; `table_height` is the table top's z in metres."""

    seed: int
    table_height: float
    items: tuple[Item, ...]
    surfaces: tuple[Surface, ...]
    lights: tuple[Light, ...]
    camera: Camera


def scene_seed(seed: int, split: str, number: int) -> int:
    """Return the seed of scene `number` of a split; it depends on nothing else."""
    digest = hashlib.sha256(f"tabletop/{seed}/{split}/{number}".encode()).digest()
    return int.from_bytes(digest[:6], "little")


def draw_scene(seed: int, new_objects: bool, extents: dict[str, list[float]]) -> Scene:
    """Draw one scene.

    Args:
        seed: from `scene_seed`.
        new_objects: whether held-out objects may appear.
        extents: object name -> width, depth, height in metres when it stands.
    """
    rng = np.random.default_rng(seed)
    height = float(rng.uniform(0.45, 0.9))
    half = rng.uniform((0.38, 0.32), (0.75, 0.6))
    is_round = bool(rng.random() < 0.25)
    room_turn = float(rng.uniform(-0.5, 0.5))
    surfaces = _room(rng, height, half, is_round, room_turn)
    reach = np.full(2, half.min() / np.sqrt(2)) if is_round else np.minimum(half, 0.42)
    items = _place(rng, reach, room_turn, height, new_objects, extents)
    return Scene(seed, height, items, surfaces, _lights(rng, height), _camera(rng, height, items))


def _tint(rng: np.random.Generator, low: float) -> Vector:
    shade = rng.uniform(low, 1.0) * rng.uniform(0.85, 1.0, 3)
    return (*(round(float(value), 4) for value in shade), 1.0)


def _about_z(angle: float) -> Vector:
    return (float(np.cos(angle / 2)), 0.0, 0.0, float(np.sin(angle / 2)))


def _product(a: Vector, b: Vector) -> Vector:
    """Return the Hamilton product of two quaternions."""
    (aw, ax, ay, az), (bw, bx, by, bz) = a, b
    return (
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    )


def _room(
    rng: np.random.Generator, height: float, half: NDArray[np.float64], is_round: bool, turn: float
) -> tuple[Surface, ...]:
    def material(names: tuple[str, ...]) -> str:
        return f"{names[rng.integers(len(names))]}@{TILES_PER_METRE[rng.integers(len(TILES_PER_METRE))]}"

    upright = (np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0)  # turns a plane's z to -y, towards the camera's side
    cos, sin = np.cos(turn), np.sin(turn)
    room = [Surface("floor", material(FLOORS), (4, 4, 0.1), (0, 0, 0), _about_z(turn), _tint(rng, 0.6))]
    near, far = sorted(rng.uniform(0.9, 2.5, 2))
    sides = (near, -far) if rng.random() < 0.5 else (-near, far)
    paint = material(WALLS)
    for number, (away, angle) in enumerate(((rng.uniform(0.7, 2.0), np.pi / 2), (sides[0], 0.0), (sides[1], 0.0))):
        # The wall's place is `away` along the direction turn + angle; it faces back to the table.
        direction = turn + angle
        at = (float(away * np.cos(direction)), float(away * np.sin(direction)), 0.0)
        facing = _about_z(float(direction - np.copysign(np.pi / 2, away)))
        paint = paint if number and rng.random() < 0.7 else material(WALLS)
        room.append(Surface(f"wall{number}", paint, (4, 4, 0.1), at, _product(facing, upright), _tint(rng, 0.6)))
    thick = float(rng.uniform(0.012, 0.03))
    wood, tint = material(TABLES), _tint(rng, 0.6)
    centre = (0.0, 0.0, height - thick)
    if is_round:
        room.append(Surface("round_top", wood, (float(half.min()), thick, 0), centre, _about_z(turn), tint))
    else:
        room.append(Surface("square_top", wood, (float(half[0]), float(half[1]), thick), centre, _about_z(turn), tint))
    leg = height / 2 - thick
    spread = (half.min() / np.sqrt(2) if is_round else half) - 0.04
    for number, corner in enumerate(((-1, -1), (1, -1), (1, 1), (-1, 1))):
        x, y = np.array(corner) * spread
        at = (float(cos * x - sin * y), float(sin * x + cos * y), leg)
        room.append(Surface(f"leg{number}", wood, (0.025, 0.025, leg), at, _about_z(turn), tint))
    return tuple(room)


def _pick(rng: np.random.Generator, kind: Kind, new_objects: bool) -> str:
    new = new_objects and bool(kind.held_out) and rng.random() < NEW_OBJECT
    names = kind.held_out if new else kind.objects
    return names[rng.integers(len(names))].rsplit("/", 1)[1]


def _pose(rng: np.random.Generator, kind: Kind, extent: list[float]) -> tuple[NDArray[np.float64], Vector, Vector]:
    """Return the extents as posed, the turn onto a side, and where the posed box's bottom centre then is."""
    size = np.array(extent)
    if not kind.lies or rng.random() >= LYING:
        return size, (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
    # A quarter turn about x (or y) brings the object's y (or x) to the vertical; its middle stays in the middle.
    half_turn = np.sqrt(0.5) * (1 if rng.random() < 0.5 else -1)
    if rng.random() < 0.5:
        quaternion, posed = (np.sqrt(0.5), half_turn, 0.0, 0.0), size[[0, 2, 1]]
        shift = (0.0, -np.sign(half_turn) * size[2] / 2, 0.0)
    else:
        quaternion, posed = (np.sqrt(0.5), 0.0, half_turn, 0.0), size[[2, 1, 0]]
        shift = (np.sign(half_turn) * size[2] / 2, 0.0, 0.0)
    return posed, quaternion, (*shift[:2], -posed[2] / 2)


def _place(
    rng: np.random.Generator,
    reach: NDArray[np.float64],
    turn: float,
    height: float,
    new_objects: bool,
    extents: dict[str, list[float]],
) -> tuple[Item, ...]:
    wanted = int(rng.integers(OBJECTS[0], OBJECTS[1] + 1))
    spread = reach * float(rng.uniform(TIGHTEST, 1.0))
    items: list[Item] = []
    boxes: list[Box] = []
    tops: list[Box] = []
    used: set[str] = set()
    has_large = False
    for _ in range(DRAWS * wanted):
        if len(items) == wanted:
            break
        kind = KINDS[rng.choice(len(KINDS), p=SHARES)]
        name = _pick(rng, kind, new_objects)
        if name in used or (kind.large and has_large):
            continue
        size, onto_side, shift = _pose(rng, kind, extents[name])
        if tops and rng.random() < ON_TOP:
            box = find_on_top(rng, size, tops[rng.integers(len(tops))], boxes)
        else:
            box = find_on_table(rng, size, spread, reach / TIGHTEST, turn, height, boxes)
        if box is None:
            continue
        cos, sin = np.cos(box.turn), np.sin(box.turn)
        at = (
            float(box.centre[0] - cos * shift[0] + sin * shift[1]),
            float(box.centre[1] - sin * shift[0] - cos * shift[1]),
            float(box.bottom - shift[2]),
        )
        items.append(Item(name, at, _product(_about_z(box.turn), onto_side), _tint(rng, 0.75)))
        boxes.append(box)
        used.add(name)
        has_large |= kind.large
        if kind.flat_top and onto_side[0] == 1.0:
            tops.append(box)
    return tuple(items)


def _lights(rng: np.random.Generator, height: float) -> tuple[Light, ...]:
    lights = []
    warmth = rng.uniform(-0.12, 0.12)
    for number in range(LIGHTS):
        angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.3)
        at = np.array([np.cos(angle) * away, np.sin(angle) * away, height + rng.uniform(0.9, 1.8)])
        aim = np.array([*rng.uniform(-0.2, 0.2, 2), height]) - at
        power = rng.uniform(0.4, 0.72) if number == 0 else rng.uniform(0.0, 0.35)
        colour = power * np.array([1 + warmth, 1.0, 1 - warmth])
        ambient = np.full(3, rng.uniform(0.12, 0.3) if number == 0 else 0.0)
        aim /= np.linalg.norm(aim)
        lights.append(Light(*(tuple(float(v) for v in vector) for vector in (at, aim, colour, ambient))))
    return tuple(lights)


def _camera(rng: np.random.Generator, height: float, items: tuple[Item, ...]) -> Camera:
    places = np.array([item.position[:2] for item in items]) if items else np.zeros((1, 2))
    aim = np.array([*(places.mean(0) + rng.uniform(-0.06, 0.06, 2)), height + rng.uniform(0.0, 0.1)])
    azimuth, elevation = rng.uniform(-0.7, 0.7), np.radians(rng.uniform(24, 62))
    distance = rng.uniform(0.6, 1.05)
    fovy = float(rng.uniform(42, 62))
    level = np.cos(elevation)
    backwards = np.array([level * np.sin(azimuth), -level * np.cos(azimuth), np.sin(elevation)])
    # Yaw about z, then a tilt about x: the camera looks along -z of its own axes, with a little roll.
    tilt, roll = np.pi / 2 - elevation, rng.uniform(-0.06, 0.06)
    turned = _product(_about_z(azimuth), (float(np.cos(tilt / 2)), float(np.sin(tilt / 2)), 0.0, 0.0))
    at = aim + distance * backwards
    return Camera((float(at[0]), float(at[1]), float(at[2])), _product(turned, _about_z(float(roll))), fovy)
