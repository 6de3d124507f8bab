"""Find room for upright boxes on a table top: no two come nearer than a gap, none sticks out of its place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
GAP = 0.012
TRIES = 24
SIGNS = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


@dataclass(frozen=True)
class Box:
    """An upright box: centre (x, y), half sides, turn about z in radians, and the heights it spans, in metres."""

    centre: Array
    half: Array
    turn: float
    bottom: float
    top: float


def axes(turn: Array) -> Array:
    """Return the boxes' own x and y axes [..., 2 axes, 2] for turns [...]."""
    cos, sin = np.cos(turn), np.sin(turn)
    return np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)


def corners(centre: Array, half: Array, turn: Array) -> Array:
    """Return the corners [N, 4, 2] of N boxes."""
    result: Array = centre[:, None] + (SIGNS * half[:, None]) @ axes(turn)
    return result


def collides(places: Array, turns: Array, half: Array, boxes: list[Box]) -> NDArray[np.bool_]:
    """Tell for each place [N, 2] and turn [N] of one box whether it comes within `GAP` of any of `boxes`.

    By the separating axis theorem: two boxes are apart when they are so along an axis of one of them.
    """
    if not boxes:
        return np.zeros(len(places), bool)
    own = corners(places, np.broadcast_to(half, places.shape), turns)
    other_turns = np.array([box.turn for box in boxes])
    others = corners(np.array([box.centre for box in boxes]), np.array([box.half for box in boxes]), other_turns)
    apart = np.zeros((len(places), len(boxes)), bool)
    own_axes, other_axes = axes(turns), axes(other_turns)
    for first, second in (
        (np.einsum("nkd,ncd->nkc", own_axes, own)[:, None], np.einsum("nkd,bcd->nbkc", own_axes, others)),
        (np.einsum("bkd,ncd->nbkc", other_axes, own), np.einsum("bkd,bcd->bkc", other_axes, others)[None]),
    ):
        gap = np.maximum(first.min(-1) - second.max(-1), second.min(-1) - first.max(-1))
        apart |= (gap >= GAP).any(-1)
    collision: NDArray[np.bool_] = np.logical_not(apart.all(1))
    return collision


def find_on_table(
    rng: np.random.Generator, size: Array, reach: Array, edge: Array, turn: float, height: float, boxes: list[Box]
) -> Box | None:
    """Find a free place on a table top turned by `turn`, or None after `TRIES` draws.

    Args:
        rng: source of the draws; the number of draws does not depend on the outcome.
        size: width, depth and height of the box.
        reach: half sides of the region for the box's centre, in the table's axes.
        edge: half sides of the region that must hold all its corners.
        turn: turn of the table about z.
        height: height of the table top.
        boxes: what stands there already.
    """
    half = size[:2] / 2
    places = rng.uniform(-reach, reach, (TRIES, 2)) @ axes(np.array(turn))
    turns = rng.uniform(0, 2 * np.pi, TRIES)
    own = corners(places, np.broadcast_to(half, places.shape), turns) @ axes(np.array(turn)).T
    top = height + float(size[2])
    near = [box for box in boxes if box.bottom < top and height < box.top]
    free = np.flatnonzero((np.abs(own) <= edge).all((1, 2)) & ~collides(places, turns, half, near))
    if not len(free):
        return None
    return Box(places[free[0]], half, float(turns[free[0]]), height, top)


def find_on_top(rng: np.random.Generator, size: Array, below: Box, boxes: list[Box]) -> Box | None:
    """Find a free place on the box `below`, turned as it is, or None after `TRIES` draws."""
    half = size[:2] / 2
    room = np.maximum(below.half - half, 0)
    places = below.centre + rng.uniform(-room, room, (TRIES, 2)) @ axes(np.array(below.turn))
    turns = np.full(TRIES, below.turn)
    top = below.top + float(size[2])
    near = [box for box in boxes if box.bottom < top and below.top < box.top]
    free = np.flatnonzero(~collides(places, turns, half, near))
    if not len(free) or (half > below.half).any():
        return None
    return Box(places[free[0]], half, below.turn, below.top, top)
