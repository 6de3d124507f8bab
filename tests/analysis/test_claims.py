from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lowdata_cpt.analysis import commands
from lowdata_cpt.analysis.claims import Claim, _why, evaluate, judge, read_claims, verdicts_markdown
from lowdata_cpt.analysis.stats import Interval
from lowdata_cpt.core.errors import UserError

KEYS = {"id", "statement", "source", "paper_value", "measured", "ci_low", "ci_high", "tolerance", "verdict", "cells"}


def claim(**changes: object) -> Claim:
    cells = {"method": "diet_cp", "reference": "base", **changes.pop("cells", {})}  # type: ignore[dict-item]
    fields = {"id": "x", "statement": "s", "source": "p", "metric": "miou", "direction": "better", "cells": cells}
    return Claim.model_validate({**fields, **changes})


@pytest.mark.parametrize(
    ("fields", "interval", "verdict"),
    [
        ({}, (0.02, 0.01, 0.03), "reproduced"),
        ({}, (0.01, -0.01, 0.03), "inconclusive"),
        ({}, (-0.02, -0.03, -0.01), "not reproduced"),
        ({"direction": "worse"}, (-0.02, -0.03, -0.01), "reproduced"),
        ({"direction": "worse"}, (0.02, 0.01, 0.03), "not reproduced"),
        # the paper's .10 within .05: at least .05 is asked for
        ({"paper_value": 0.1, "tolerance": 0.05}, (0.06, 0.01, 0.11), "reproduced"),
        ({"paper_value": 0.1, "tolerance": 0.05}, (0.04, 0.01, 0.07), "inconclusive"),
        ({"paper_value": 0.1, "tolerance": 0.05}, (0.02, 0.01, 0.03), "not reproduced"),
        ({"paper_value": 0.1, "tolerance": 0.05}, (0.01, -0.02, 0.04), "not reproduced"),
        ({"paper_value": 0.1, "tolerance": 0.05}, (0.3, 0.2, 0.4), "reproduced"),
        ({"paper_value": -0.1, "tolerance": 0.05, "direction": "worse"}, (-0.06, -0.08, -0.04), "reproduced"),
        ({"paper_value": 0.1}, (0.01, 0.005, 0.015), "reproduced"),  # no tolerance: the direction only
        # no loss beyond the tolerance is asked for; a gain is no failure
        ({"paper_value": 0.0, "tolerance": 0.01, "direction": "not_worse"}, (0.0, -0.005, 0.005), "reproduced"),
        ({"paper_value": 0.0, "tolerance": 0.01, "direction": "not_worse"}, (0.03, 0.02, 0.04), "reproduced"),
        ({"paper_value": 0.0, "tolerance": 0.01, "direction": "not_worse"}, (0.0, -0.02, 0.02), "inconclusive"),
        ({"paper_value": 0.0, "tolerance": 0.01, "direction": "not_worse"}, (-0.03, -0.04, -0.02), "not reproduced"),
    ],
)
def test_the_verdict_rule(fields: dict[str, object], interval: tuple[float, float, float], verdict: str) -> None:
    assert judge(claim(**fields), Interval(*interval)) == verdict


@pytest.mark.parametrize(
    ("value", "reason"), [(-0.03, "a loss beyond the tolerance"), (0.0, "the interval leaves the tolerance"), (0.1, "")]
)
def test_a_missed_or_kept_level_is_explained(value: float, reason: str) -> None:
    level = claim(paper_value=0.0, tolerance=0.01, direction="not_worse")
    interval = Interval(value, value - 0.015, value + 0.015)
    assert _why(level, interval, judge(level, interval)) == reason


def test_one_seed_is_inconclusive() -> None:
    assert judge(claim(), Interval(0.5)) == "inconclusive"


def test_measures_known_effects(scores: pd.DataFrame) -> None:
    gain = evaluate(claim(metric="knn_macro_f1", cells={"domain": ["tabletop"], "n": [1000]}), scores)
    assert gain.verdict == "reproduced"
    assert gain.measured == pytest.approx(0.12 * 0.6, abs=0.02)  # the synthetic study's effect × base
    assert gain.ci_low < gain.measured < gain.ci_high
    assert "tabletop n=1000 ×3 seeds" in gain.cells
    error = evaluate(claim(metric="rmse", cells={"method": "v_pretraining"}), scores)
    assert error.measured > 0  # a lower error counts as a gain
    loss = evaluate(claim(cells={"method": "mae"}, direction="worse"), scores)
    assert loss.verdict == "reproduced"
    assert loss.measured < 0
    trend = evaluate(claim(metric="knn_macro_f1", cells={"n": [1000], "n_minus": [100]}), scores)
    assert trend.measured == pytest.approx(0.12 * 0.6 / 3, abs=0.02)


def test_sizes_of_one_seed_are_one_replicate() -> None:
    place = {"study": "s", "backbone": "b", "domain": "camvid", "task": "segmentation", "metric": "miou"}
    values = {("base", 0): (0.5, 0.5), ("diet_cp", 100): (0.6, 0.5), ("diet_cp", 1000): (0.8, 0.7)}
    rows = [
        place
        | {"method": method, "n": n, "seed": seed, "split": split, "value": value if split == "test" else 1 - value}
        | {"images_seen": n, "train_seconds": 0.0}
        for (method, n), pair in values.items()
        for seed, value in enumerate(pair)
        for split in ("val", "test")
    ]
    found = evaluate(claim(), pd.DataFrame(rows))  # seeds: .2 and .1; standard error .05; t(1) = 12.7062
    assert (found.measured, found.ci_low, found.ci_high) == pytest.approx((0.15, -0.48531, 0.78531), abs=1e-5)
    assert found.verdict == "inconclusive"


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"domain": ["food101"]}, "domain food101"),
        ({"method": "mystery"}, "method mystery"),
        ({"reference": "mystery"}, "method mystery"),
        ({"backbone": ["*vit_large*"]}, "vit_large"),
        ({"domain": ["tabletop"], "n": [7]}, "n = 7"),
    ],
)
def test_absent_cells_are_not_run_with_a_reason(scores: pd.DataFrame, cells: dict[str, object], reason: str) -> None:
    found = evaluate(claim(cells=cells), scores)
    assert (found.verdict, found.measured) == ("not run", None)
    assert reason in found.reason


def test_data_that_was_not_there_is_the_reason(scores: pd.DataFrame) -> None:
    found = evaluate(claim(cells={"domain": ["food101"]}), scores, {"food101": "no data in data/food101", "x": "y"})
    assert found.verdict == "not run"
    assert found.reason == "the data of food101 was not on the machine (no data in data/food101)"


def test_partly_absent_cells_are_named(scores: pd.DataFrame) -> None:
    found = evaluate(claim(cells={"domain": ["tabletop", "food101"], "n": "largest"}), scores)
    assert found.verdict != "not run"
    assert "without food101" in found.reason


def test_unequal_images_support_nothing(scores: pd.DataFrame) -> None:
    wanted = claim(cells={"method": "glare", "reference": "dino"})
    assert evaluate(wanted, scores).verdict == "reproduced"
    unequal = scores.copy()
    unequal.loc[unequal["method"].eq("glare"), "images_seen"] *= 2
    found = evaluate(wanted, unequal)
    assert found.verdict == "inconclusive"
    assert "images seen differ" in found.reason


def test_the_projects_claims_are_valid_and_honest(claims_file: Path) -> None:
    claims = {one.id: one for one in read_claims(claims_file)}
    assert len(claims) > 40
    losses = {name for name, one in claims.items() if one.direction == "worse"}
    assert {"diet_cp.food101.knn", "diet_cp.cars196.linear", "diet_cp.organa.knn", "step0.dino.miou"} <= losses
    assert claims["v_pretraining.nyuv2.rmse"].paper_value == pytest.approx(0.5888 - 0.5697)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(colour="red"), "claims.0.colour"),
        (lambda c: c.update(metric="iou"), "claims.0.metric"),
        (lambda c: c["cells"].update(domains=["a"]), "claims.0.cells.domains"),
        (lambda c: c.update(paper_value=-0.1), "contradicts direction"),
        (lambda c: c.update(tolerance=0.1), "tolerance needs a paper_value"),
        (lambda c: c.pop("source"), "claims.0.source"),
    ],
)
def test_wrong_claims_are_one_clear_error(tmp_path: Path, change, message: str) -> None:
    one = json.loads(claim().model_dump_json(exclude_none=True))
    change(one)
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"claims": [one]}))
    with pytest.raises(UserError, match=message) as caught:
        read_claims(path)
    assert "\n" not in str(caught.value)


def test_repeated_id_and_broken_yaml(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"claims": [json.loads(claim().model_dump_json())] * 2}))
    with pytest.raises(UserError, match="more than once"):
        read_claims(path)
    path.write_text("claims: [")
    with pytest.raises(UserError, match="not valid YAML"):
        read_claims(path)


def test_make_claims_writes_the_contract(small: Path, claims_file: Path, tmp_path: Path) -> None:
    commands.make_claims(small / "scores.csv", claims_file, tmp_path, "embedded")
    found = json.loads((tmp_path / "claims.json").read_text())
    assert len(found) == len(read_claims(claims_file))
    assert all(set(one) >= KEYS for one in found)
    assert {one["verdict"] for one in found} <= {"reproduced", "not reproduced", "inconclusive", "not run"}
    assert all(one["reason"] for one in found if one["verdict"] == "not run")
    page = (tmp_path / "claims.md").read_text()
    assert all(one["id"] in page for one in found)
    assert "## The rule" in page
    assert commands.read_results(tmp_path / "claims.json")[0].id == found[0]["id"]
    with pytest.raises(UserError, match="no row of study other"):
        commands.make_claims(small / "scores.csv", claims_file, tmp_path, "other")


def test_short_table_holds_what_could_be_judged(scores: pd.DataFrame) -> None:
    known, unknown = evaluate(claim(), scores), evaluate(claim(cells={"domain": ["food101"]}), scores)
    text = verdicts_markdown([known, unknown])
    assert known.statement in text
    assert f"**{known.verdict}**" in text
    assert "2 claims of the papers: 1 not reproduced, 1 not run." in text
    own = known.model_copy(update={"published": False})
    text = verdicts_markdown([own, unknown])
    assert f"| {known.statement} (not in a paper) |" in text
    assert "1 claims of the papers: 1 not run; 1 statements that are in no paper: 1 not reproduced." in text
    open_one = known.model_copy(update={"statement": "undecided", "verdict": "inconclusive"})
    decided = known.model_copy(update={"statement": "decided", "verdict": "not reproduced"})
    text = verdicts_markdown([open_one, decided])
    assert text.index("| decided") < text.index("| undecided")
