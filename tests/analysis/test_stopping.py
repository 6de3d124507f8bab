"""Runs stopped by validation: the choice made again by hand, and its gain."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lowdata_cpt.analysis.figures.learning import curve_of_scores
from lowdata_cpt.analysis.stopping import chosen_milestones, stopped_gain
from lowdata_cpt.analysis.style import step_zeros
from lowdata_cpt.analysis.summary import gain_curve
from lowdata_cpt.analysis.table import COLUMNS
from lowdata_cpt.analysis.tables import stopping_markdown

# (images seen, validation, test) of each seed's run; the first is step zero, the base under the domain's normalisation.
RUNS = {
    0: [(0, 0.50, 0.52), (1000, 0.60, 0.55), (3000, 0.70, 0.58), (4000, 0.65, 0.90)],
    1: [(0, 0.50, 0.51), (1000, 0.45, 0.95), (3000, 0.50, 0.96), (4000, 0.49, 0.97)],
    2: [(0, 0.50, 0.53), (1000, 0.62, 0.60), (3000, 0.62, 0.99), (4000, 0.61, 0.99)],
}
BASE = 0.50
CHOSEN = {0: 3000, 1: 0, 2: 1000}  # of equal scores the first


def table(metric: str = "knn_accuracy", method: str = "diet_cp", before: str = "base_domain_norm") -> pd.DataFrame:
    task = "depth" if metric == "rmse" else "linear"
    rows = []

    def row(method: str, n: int, seed: int, split: str, value: float, seen: int) -> None:
        rows.append(["s", "vit", "cifar10", method, n, seed, task, metric, split, value, seen, 1.0])

    for seed, run in RUNS.items():
        for split, place in (("val", 1), ("test", 2)):
            row("base", 0, seed, split, BASE if before != "base" or split == "val" else run[0][place], 0)
            if before != "base":
                row(before, 0, seed, split, run[0][place], 0)
            for found in run[1:]:
                row(method, 100, seed, split, found[place], found[0])
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_each_run_is_stopped_where_validation_is_best() -> None:
    chosen = chosen_milestones(table()).set_index("seed")["images_seen"]
    assert chosen.to_dict() == CHOSEN


def test_its_gain_is_that_of_the_test_images_there() -> None:
    (row,) = stopped_gain(table()).to_dict("records")
    test = {seed: {seen: value for seen, _, value in run} for seed, run in RUNS.items()}
    expected = 100 * np.mean([test[seed][seen] - BASE for seed, seen in CHOSEN.items()])
    assert row["mean"] == pytest.approx(expected)
    assert (row["images_seen"], row["at_start"], row["seeds"]) == (1000, 1, 3)
    assert row["ci_low"] < row["mean"] < row["ci_high"]
    assert row["interval_covers"] == "seeds"


def test_of_an_error_the_lowest_is_best() -> None:
    chosen = chosen_milestones(table("rmse")).set_index("seed")["images_seen"]
    assert chosen.to_dict() == {0: 0, 1: 1000, 2: 0}


def test_a_method_without_a_start_of_its_own_starts_at_base() -> None:
    (row,) = stopped_gain(table(method="glare", before="base")).to_dict("records")
    assert row["at_start"] == 1
    # The seed that stays at the base gains nothing.
    assert row["mean"] == pytest.approx(100 * np.mean([0.58 - 0.52, 0.0, 0.60 - 0.53]))


def test_a_variant_starts_at_what_its_own_settings_say() -> None:
    """A study's settings decide, not the name: of two variants of DIET-CP one is not normalised by the domain."""
    settings = {
        "base": {},
        "diet_cp_slow": {"normalisation": "domain"},
        "diet_cp_raw": {"normalisation": "pretraining"},
    }
    before = step_zeros(settings)
    assert before == {"base": "base", "diet_cp_slow": "base_domain_norm", "diet_cp_raw": "base"}
    for method, start in (("diet_cp_slow", "base_domain_norm"), ("diet_cp_raw", "base")):
        scores = table(method=method, before=start)
        assert chosen_milestones(scores, before).set_index("seed")["images_seen"].to_dict() == CHOSEN
        curve = gain_curve(scores[scores["split"] == "test"], before=before).set_index("images_seen")
        gain = np.mean([run[0][2] - BASE for run in RUNS.values()]) if start != "base" else 0.0
        assert curve.loc[0, "mean"] == pytest.approx(100 * gain)
        assert stopped_gain(scores, before=before)["at_start"].item() == 1


def test_step_zero_is_told_of_the_seeds_that_ran() -> None:
    scores = table(method="diet_cp")
    fewer = scores[(scores["n"] == 0) | (scores["seed"] < 2)]
    curve = gain_curve(fewer[fewer["split"] == "test"]).set_index("images_seen")
    assert curve.loc[0, "seeds"] == 2
    assert curve.loc[0, "mean"] == pytest.approx(100 * np.mean([RUNS[seed][0][2] - BASE for seed in (0, 1)]))
    drawn = curve_of_scores(fewer).set_index("images_seen")
    assert drawn.loc[0, "score"] == pytest.approx(100 * np.mean([RUNS[seed][0][2] for seed in (0, 1)]))


def test_the_table_has_both_gains_side_by_side() -> None:
    text = stopping_markdown(table())
    (line,) = [line for line in text.splitlines() if line.startswith("| CIFAR-10")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[4].startswith("+45.33")
    assert cells[5].startswith("+6.33")
    assert cells[6:] == ["1,000", "1 of 3"]
    assert stopping_markdown(table()[lambda rows: rows["n"] == 0]) == ""
