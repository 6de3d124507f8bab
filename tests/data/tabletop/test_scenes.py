"""Scenes from seeds: reproducible, without overlaps, with the right objects in the right splits."""

from __future__ import annotations

import numpy as np
import pytest

from lowdata_cpt.data.tabletop.catalogue import HELD_OUT, KIND_OF, KINDS
from lowdata_cpt.data.tabletop.placement import GAP, Box, collides, corners, find_on_table, find_on_top
from lowdata_cpt.data.tabletop.scenes import OBJECTS, draw_scene, scene_seed

EXTENTS = {name: [0.12, 0.08, 0.1] for name in KIND_OF}


def inside(points: np.ndarray, box: Box) -> np.ndarray:
    cos, sin = np.cos(box.turn), np.sin(box.turn)
    own = (points - box.centre) @ np.array([[cos, -sin], [sin, cos]])
    return (np.abs(own) < box.half).all(-1)


def grid_of(box: Box) -> np.ndarray:
    steps = np.stack(np.meshgrid(np.linspace(-1, 1, 25), np.linspace(-1, 1, 25)), -1).reshape(-1, 2)
    cos, sin = np.cos(box.turn), np.sin(box.turn)
    return box.centre + (steps * box.half) @ np.array([[cos, sin], [-sin, cos]])


def test_seeds_differ_between_splits_and_numbers() -> None:
    seeds = {scene_seed(seed, split, number) for seed in (0, 1) for split in ("pool", "test") for number in range(50)}
    assert len(seeds) == 200


def test_a_scene_is_its_seed() -> None:
    assert draw_scene(5, True, EXTENTS) == draw_scene(5, True, EXTENTS)
    assert draw_scene(5, True, EXTENTS) != draw_scene(6, True, EXTENTS)


def test_held_out_objects_appear_only_where_allowed() -> None:
    train = {item.name for seed in range(60) for item in draw_scene(seed, False, EXTENTS).items}
    test = {item.name for seed in range(200) for item in draw_scene(seed, True, EXTENTS).items}
    assert train == set(KIND_OF) - HELD_OUT
    assert test == set(KIND_OF)


def test_no_object_is_both_held_out_and_seen() -> None:
    for kind in KINDS:
        assert kind.objects
        assert not set(kind.objects) & set(kind.held_out)
    assert len(KIND_OF) == sum(len(kind.objects) + len(kind.held_out) for kind in KINDS)


def test_scenes_are_cluttered_and_hold_one_large_object_at_most() -> None:
    scenes = [draw_scene(seed, False, EXTENTS) for seed in range(40)]
    assert np.mean([len(scene.items) for scene in scenes]) > OBJECTS[0]
    for scene in scenes:
        assert len({item.name for item in scene.items}) == len(scene.items)
        assert sum(KINDS[KIND_OF[item.name] - 1].large for item in scene.items) <= 1


def test_quaternions_are_unit() -> None:
    for item in draw_scene(1, True, EXTENTS).items:
        assert np.linalg.norm(item.quaternion) == pytest.approx(1)


def test_boxes_on_a_table_neither_overlap_nor_stick_out() -> None:
    rng = np.random.default_rng(0)
    boxes: list[Box] = []
    reach, edge = np.array([0.3, 0.2]), np.array([0.5, 0.33])
    for _ in range(30):
        box = find_on_table(rng, rng.uniform(0.05, 0.2, 3), reach, edge, 0.4, 0.7, boxes)
        if box is not None:
            boxes.append(box)
    assert len(boxes) > 5
    for number, one in enumerate(boxes):
        assert one.bottom == 0.7
        table = Box(np.zeros(2), edge + 1e-9, 0.4, 0.0, 0.7)
        assert inside(corners(one.centre[None], one.half[None], np.array([one.turn]))[0], table).all()
        for other in boxes[:number]:
            assert not inside(grid_of(one), other).any()
            assert not inside(grid_of(other), one).any()


def test_what_stands_on_top_stays_within() -> None:
    rng = np.random.default_rng(0)
    below = Box(np.array([0.1, 0.2]), np.array([0.2, 0.15]), 0.7, 0.5, 0.8)
    box = find_on_top(rng, np.array([0.1, 0.1, 0.2]), below, [below])
    assert box is not None
    assert (box.bottom, box.top) == (0.8, 1.0)
    assert inside(grid_of(box), Box(below.centre, below.half + 1e-9, below.turn, 0, 1)).all()
    assert find_on_top(rng, np.array([0.5, 0.1, 0.2]), below, [below]) is None


def test_the_gap_is_kept() -> None:
    box = Box(np.zeros(2), np.array([0.1, 0.1]), 0.0, 0.0, 1.0)
    half = np.array([0.1, 0.1])
    places = np.array([[0.2 + GAP * 0.9, 0.0], [0.2 + GAP * 1.1, 0.0], [0.0, 0.05]])
    assert collides(places, np.zeros(3), half, [box]).tolist() == [True, False, True]
