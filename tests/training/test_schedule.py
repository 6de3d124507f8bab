from __future__ import annotations

import math
from itertools import pairwise

import pytest

from lowdata_cpt.methods.diet_cp.config import DietCP
from lowdata_cpt.training.config import Optimiser, Schedule
from lowdata_cpt.training.schedule import learning_rate, weight_decay


def test_diet_cp_rate_at_given_epochs() -> None:
    """150 epochs: factor epoch / 15 for the first 15, then cosine from 1e-4 to 1e-5, constant within an epoch."""
    config = DietCP()
    per_epoch, steps = 4, 600

    def at(epoch: int, within: int = 0) -> float:
        return learning_rate(config.optimiser, config.schedule, epoch * per_epoch + within, steps, per_epoch)

    assert at(0) == 0.0
    assert at(7) == pytest.approx(1e-4 * 7 / 15)
    assert at(15) == pytest.approx(1e-4)
    assert at(15, 3) == at(15)
    middle = 1e-5 + (1e-4 - 1e-5) * 0.5 * (1 + math.cos(math.pi * 67 / 135))
    assert at(82) == pytest.approx(middle)
    last = 1e-5 + (1e-4 - 1e-5) * 0.5 * (1 + math.cos(math.pi * 134 / 135))
    assert at(149) == pytest.approx(last)


def test_step_schedule_warms_up_and_ends_near_its_last_rate() -> None:
    optimiser, schedule = Optimiser(lr=1.0), Schedule(unit="step", warmup=0.1, final_lr=0.0)
    rates = [learning_rate(optimiser, schedule, step, 100, 7) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1.0
    assert rates[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert learning_rate(optimiser, Schedule(warmup=0.0, final_lr=0.25), 1, 1, 1) == pytest.approx(0.25)


def test_weight_decay_is_constant_or_a_cosine() -> None:
    assert weight_decay(Optimiser(lr=1, weight_decay=0.05), 50, 100) == 0.05
    ramp = Optimiser(lr=1, weight_decay=0.04, weight_decay_end=0.1)
    assert weight_decay(ramp, 0, 100) == pytest.approx(0.04)
    assert weight_decay(ramp, 50, 100) == pytest.approx(0.07)
    assert weight_decay(ramp, 100, 100) == pytest.approx(0.1)
    assert weight_decay(ramp, 1, 1) == pytest.approx(0.1)
