from __future__ import annotations

import math

import pandas as pd
import pytest

from lowdata_cpt.analysis.preconditions import PRECONDITIONS, check_preconditions, idle_text
from lowdata_cpt.methods.registry import METHODS

STUDY = {
    "methods": {
        "dino": {"method": "dino", "prototypes": 100, "optimiser": {"lr": 1e-5}},
        "odd": {"method": "diet_cp", "optimiser": {"lr": 2e-5}},
    }
}


def log(method: str, part: str, values: list[float], n: int = 100, seed: int = 0) -> pd.DataFrame:
    place = {"backbone": "b", "domain": "neu_steel", "method": method, "n": n, "seed": seed, "images_seen": 1}
    return pd.DataFrame([{**place, "step": step, "part": part, "value": v} for step, v in enumerate(values)])


def acted(curves: pd.DataFrame, study: dict | None = None) -> bool:
    (row,) = check_preconditions(curves, study).to_dict("records")
    return row["acted"]


@pytest.mark.parametrize(
    ("method", "part", "level"),
    [("diet_cp", "loss", math.log(100) - 0.1), ("tec", "feature", 0.95), ("mae", "loss", 0.95)],
)
def test_a_loss_must_end_below_its_trivial_level(method: str, part: str, level: float) -> None:
    assert acted(log(method, part, [9.0] * 18 + [level - 0.01] * 2))
    assert not acted(log(method, part, [level - 1] * 18 + [level + 0.01] * 2)), "the end counts, not the lowest"
    assert not acted(log(method, part, [level])), "below it, not at it"
    for ends, expected in (([-0.4, 0.1, 0.1], True), ([-0.1, -0.1, 0.4], False)):  # the mean of the runs counts
        table = check_preconditions(pd.concat(log(method, part, [level + end], seed=s) for s, end in enumerate(ends)))
        assert table[["acted", "runs"]].to_dict("records") == [{"acted": expected, "runs": 3}]
        assert table["value"].item() == pytest.approx(level + sum(ends) / 3)


def test_a_cross_entropy_over_prototypes_needs_their_number() -> None:
    assert acted(log("dino", "loss", [math.log(100) - 0.1]), STUDY)
    assert not acted(log("dino", "loss", [math.log(100) - 0.001]), STUDY)
    assert check_preconditions(log("dino", "loss", [1.0])).empty


def test_the_value_must_be_positive_beyond_chance() -> None:
    assert acted(log("v_pretraining", "value", [1.0] * 15 + [-1.0] * 5))  # 15 of 20: p = .021
    assert check_preconditions(log("v_pretraining", "value", [1.0] * 15 + [0.0] * 5))["value"].item() == 0.75
    assert not acted(log("v_pretraining", "value", [1.0] * 14 + [-1.0] * 6))  # 14 of 20: p = .058
    both = pd.concat([log("v_pretraining", "value", [1.0] * 14 + [-1.0] * 6, seed=seed) for seed in range(2)])
    assert acted(both), "all runs of a cell count together"


def test_a_variant_is_held_to_its_methods_preconditions() -> None:
    assert not acted(log("odd", "loss", [5.0]), STUDY)
    assert not acted(log("diet_cp_pretraining_norm", "loss", [5.0]))


def test_shares_of_the_sources_run() -> None:
    """A thousand images at a fifth of the rate: what DIET-CP had in the study of first steps."""
    place = {"backbone": "b", "domain": "neu_steel", "method": "odd", "n": 100, "train_seconds": 1.0}
    runs = enumerate(((1000, 40), (1000, 40), (9000, 360)))  # the median counts
    cost = pd.DataFrame([{**place, "seed": seed, "images_seen": seen, "steps": steps} for seed, (seen, steps) in runs])
    table = check_preconditions(log("odd", "loss", [4.6]), STUDY, cost)
    (row,) = table.to_dict("records")
    assert row["share_images"] == pytest.approx(1000 / 15_000)
    assert row["share_updates"] == pytest.approx(40 / (150 * 4))
    assert row["share_rate_images"] == pytest.approx(1000 / 15_000 / 5)
    text = idle_text(table)
    assert "did not act on NEU steel" in text
    assert "6.7 % of the images, 6.7 % of the updates, 1.3 % of the rate × images" in text


def test_every_trained_method_has_a_precondition() -> None:
    trained = {one.model_fields["method"].default for one in METHODS if one.learner_path is not None}
    assert trained == set(PRECONDITIONS)
