"""Numbers of the features' geometry against cases whose value is known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lowdata_cpt.jobs.geometry import effective_rank, uniformity


def test_uniformity_of_opposite_and_of_equal_points() -> None:
    one = np.array([[2.0, 0.0], [5.0, 0.0]])
    assert uniformity(one) == pytest.approx(0.0)
    assert uniformity(one * [[1], [-1]]) == pytest.approx(-8.0)
    square = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    assert uniformity(square) == pytest.approx(math.log((4 * math.exp(-4) + 2 * math.exp(-8)) / 6))


def test_uniformity_falls_as_points_spread() -> None:
    rng = np.random.default_rng(0)
    near, wide = rng.normal([5, 0, 0, 0], 0.1, (50, 4)), rng.normal(0, 1, (50, 4))
    assert uniformity(wide) < uniformity(near) < 0


@pytest.mark.parametrize(("axes", "rank"), [(1, 1.0), (3, 3.0)])
def test_effective_rank_counts_directions_of_equal_strength(axes: int, rank: float) -> None:
    points = np.concatenate([np.eye(5)[:axes], -np.eye(5)[:axes]]) + 7.0  # the shared mean does not count
    assert effective_rank(points) == pytest.approx(rank)


def test_effective_rank_of_unequal_directions_and_of_none() -> None:
    points = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    shares = np.array([0.75, 0.25])
    assert effective_rank(points) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))
    assert effective_rank(np.full((4, 3), 0.1)) == 0.0
