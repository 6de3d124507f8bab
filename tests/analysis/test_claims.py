from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lowdata_cpt.analysis import commands
from lowdata_cpt.analysis.claims import Evidence, Result, evaluate, reproduced_line, to_markdown, verdicts_markdown
from lowdata_cpt.analysis.claims_file import Claim, read_claims
from lowdata_cpt.analysis.stats import Interval
from lowdata_cpt.analysis.study_files import StudyFiles
from lowdata_cpt.analysis.verdicts import VERDICTS, judge, paper_size, why
from lowdata_cpt.core.errors import UserError

KEYS = {"id", "statement", "source", "paper_value", "measured", "ci_low", "ci_high", "tolerance", "verdict", "cells"}


def claim(**changes: object) -> Claim:
    cells = {"method": "diet_cp", "reference": "base", **changes.pop("cells", {})}  # type: ignore[dict-item]
    fields = {"id": "x", "statement": "s", "source": "p", "metric": "miou", "direction": "better", "cells": cells}
    return Claim.model_validate({**fields, **changes})


@pytest.mark.parametrize(
    ("fields", "interval", "verdict"),
    [
        ({}, (2, 1, 3), "reproduced"),
        ({}, (1, -1, 3), "inconclusive"),
        ({}, (-2, -3, -1), "not reproduced"),
        # an interval that touches zero decides nothing
        ({}, (1, 0, 2), "inconclusive"),
        ({}, (-1, -2, 0), "inconclusive"),
        ({"direction": "worse"}, (-1, -2, 0), "inconclusive"),
        ({"direction": "worse"}, (1, 0, 2), "inconclusive"),
        ({}, (0, 0, 0), "inconclusive"),
        ({"direction": "worse"}, (-2, -3, -1), "reproduced"),
        ({"direction": "worse"}, (2, 1, 3), "not reproduced"),
        # the paper's 10 within 5: at least 5 is asked for
        ({"paper_value": 10, "tolerance": 5}, (6, 1, 11), "reproduced"),
        ({"paper_value": 10, "tolerance": 5}, (4, 1, 7), "inconclusive"),
        ({"paper_value": 10, "tolerance": 5}, (2, 1, 3), "not reproduced"),
        ({"paper_value": 10, "tolerance": 5}, (1, -2, 4), "inconclusive"),
        ({"paper_value": 10, "tolerance": 5}, (30, 20, 40), "reproduced"),
        ({"paper_value": -10, "tolerance": 5, "direction": "worse"}, (-6, -8, -4), "reproduced"),
        ({"paper_value": 10, "tolerance": 5}, (5, 1, 9), "reproduced"),
        ({"paper_value": 10, "tolerance": 5}, (3, 1, 5), "inconclusive"),
        ({"paper_value": 10, "tolerance": 9.5}, (0.25, 0.1, 0.4), "not reproduced"),
        ({"paper_value": 10, "tolerance": 9.5}, (0.4, 0.1, 0.7), "inconclusive"),
        ({}, (0.5, 0.1, 0.9), "reproduced"),
        ({"paper_value": 0, "tolerance": 0, "direction": "not_worse"}, (-0.5, -0.9, -0.1), "not reproduced"),
        ({"paper_value": 3, "tolerance": 5}, (0.5, 0.1, 0.9), "reproduced"),  # a need below zero is none
        ({"paper_value": 10}, (1, 0.5, 1.5), "reproduced"),  # no tolerance: the direction only
        # no loss beyond the tolerance is asked for; a gain is no failure
        ({"paper_value": 0, "tolerance": 1, "direction": "not_worse"}, (0, -0.5, 0.5), "reproduced"),
        ({"paper_value": 0, "tolerance": 1, "direction": "not_worse"}, (3, 2, 4), "reproduced"),
        ({"paper_value": 0, "tolerance": 1, "direction": "not_worse"}, (0, -2, 2), "inconclusive"),
        ({"paper_value": 0, "tolerance": 1, "direction": "not_worse"}, (0, -1, 1), "inconclusive"),
        ({"paper_value": 0, "tolerance": 1, "direction": "not_worse"}, (-2, -3, -1), "inconclusive"),
        ({"paper_value": 0, "tolerance": 1, "direction": "not_worse"}, (-3, -4, -2), "not reproduced"),
    ],
)
def test_the_verdict_rule(fields: dict[str, object], interval: tuple[float, float, float], verdict: str) -> None:
    assert judge(claim(**fields), Interval(*interval)) == verdict


@pytest.mark.parametrize(
    ("paper", "interval", "size"),
    [
        (5, (2, 1, 4.9), "excluded"),
        (5, (2, -1, 5.0), "possible"),
        (5, (9, 5.1, 12), "exceeded"),
        (5, (9, 5.0, 12), "possible"),
        (0, (-2, -3, -1), "excluded"),
        (0, (2, 1, 3), "exceeded"),
        (0.5, (2, 1, 3), "exceeded"),
        (-5, (-2, -4.9, -1), "excluded"),
        (-5, (-9, -12, -5.1), "exceeded"),
        (-5, (3, 1, 5), "excluded"),
        (None, (2, 1, 3), None),
    ],
)
def test_whether_an_effect_of_the_papers_size_is_excluded(
    paper: float | None, interval: tuple[float, float, float], size: str | None
) -> None:
    one = claim(paper_value=paper, direction="worse" if paper and paper < 0 else "better")
    assert paper_size(one, Interval(*interval)) == size


@pytest.mark.parametrize(
    ("value", "reason"), [(-3, "a loss beyond the tolerance"), (0.0, "the interval leaves the tolerance"), (10, "")]
)
def test_a_missed_or_kept_level_is_explained(value: float, reason: str) -> None:
    level = claim(paper_value=0.0, tolerance=1, direction="not_worse")
    interval = Interval(value, value - 1.5, value + 1.5)
    assert why(level, interval, judge(level, interval)) == reason


@pytest.mark.parametrize(
    ("fields", "interval", "reason"),
    [
        ({}, (1, 0, 2), "the interval holds zero"),
        ({}, (-2, -3, -1), "opposite direction"),
        ({"direction": "worse"}, (2, 1, 3), "opposite direction"),
        ({"paper_value": 10, "tolerance": 5}, (2, 1, 3), "same direction, smaller than the claim asks for"),
        ({"paper_value": 10, "tolerance": 9.5}, (0.25, 0.1, 0.4), "same direction, smaller than the claim asks for"),
        (
            {"paper_value": 10, "tolerance": 5},
            (4, 1, 7),
            "same direction, smaller than the claim asks for, but the interval reaches it",
        ),
        ({}, (2, 1, 3), ""),
    ],
)
def test_a_verdict_has_its_reason(fields: dict[str, object], interval: tuple[float, float, float], reason: str) -> None:
    one, found = claim(**fields), Interval(*interval)
    assert why(one, found, judge(one, found)) == reason


def test_without_an_interval_no_size_is_excluded() -> None:
    assert paper_size(claim(paper_value=5), Interval(1.0)) is None


def test_one_seed_is_inconclusive(scores: pd.DataFrame) -> None:
    assert judge(claim(), Interval(50)) == "inconclusive"
    assert judge(claim(), Interval(5, 4, 6, covers="test images")) == "inconclusive"
    found = evaluate(claim(), Evidence(scores[scores["seed"].eq(0)]))
    assert (found.verdict, found.reason) == ("inconclusive", "one seed gives no verdict")


def test_measures_known_effects(scores: pd.DataFrame) -> None:
    evidence = Evidence(scores)
    ends = scores[scores["split"].eq("test") & scores["metric"].eq("knn_macro_f1")]
    ends = ends[ends["images_seen"].isin([0, 12_800])]
    mean = 100 * ends.groupby(["method", "n", "domain"])["value"].mean()
    gain = evaluate(claim(metric="knn_macro_f1", cells={"domain": "tabletop", "n": 1000}), evidence)
    assert gain.verdict == "reproduced"
    expected = mean["diet_cp", 1000, "tabletop"] - mean["base", 0, "tabletop"]
    assert gain.measured == pytest.approx(expected, abs=6e-5)
    assert expected == pytest.approx(12 * 0.6, abs=2)  # the synthetic study's effect × base, in points
    assert gain.ci_low < gain.measured < gain.ci_high
    assert gain.mde > 0
    assert gain.p_sign_flip == 0.25
    assert (gain.unit, gain.interval_covers) == ("points", "seeds")
    assert "tabletop n=1000 ×3 seeds" in gain.cells
    error = evaluate(claim(metric="rmse", cells={"method": "v_pretraining"}), evidence)
    assert error.measured > 0  # a lower error counts as a gain
    assert error.unit == "%"
    loss = evaluate(claim(cells={"method": "mae"}, direction="worse"), evidence)
    assert loss.verdict == "reproduced"
    assert loss.measured < 0
    trend = evaluate(claim(metric="knn_macro_f1", cells={"n": 1000, "n_minus": 100}), evidence)
    assert trend.measured == pytest.approx((mean["diet_cp", 1000] - mean["diet_cp", 100]).mean(), abs=6e-5)


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
    found = evaluate(claim(), Evidence(pd.DataFrame(rows)))  # seeds: 20 and 10; standard error 5; t(1) = 12.7062
    assert (found.measured, found.ci_low, found.ci_high) == pytest.approx((15, -48.531, 78.531), abs=1e-3)
    assert found.verdict == "inconclusive"


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"domain": "food101"}, "food101 is not in the study"),
        ({"method": "mystery"}, "method mystery"),
        ({"reference": "mystery"}, "method mystery"),
        ({"backbone": "*vit_large*"}, "vit_large"),
        ({"domain": "tabletop", "n": 7}, "n = 7"),
    ],
)
def test_absent_cells_are_not_run_with_a_reason(scores: pd.DataFrame, cells: dict[str, object], reason: str) -> None:
    found = evaluate(claim(cells=cells), Evidence(scores))
    assert (found.verdict, found.measured) == ("not run", None)
    assert reason in found.reason


def test_what_a_domain_of_the_study_lacks_is_the_reason(scores: pd.DataFrame) -> None:
    wanted = claim(cells={"domain": "tabletop"})
    unlabelled = scores[(scores["domain"] != "tabletop") | (scores["metric"] != wanted.metric)]
    elsewhere = scores[(scores["domain"] != "tabletop") | (scores["method"] != "diet_cp")]
    for table, reason in ((unlabelled, "tabletop has no miou"), (elsewhere, "none of diet_cp's cells on tabletop")):
        found = evaluate(wanted, Evidence(pd.concat([table, scores.assign(domain="pets")])))
        assert found.verdict == "not run"
        assert found.reason.startswith(reason)


def test_data_that_was_not_there_is_the_reason(scores: pd.DataFrame) -> None:
    absent = {"food101": "no data in data/food101", "x": "y"}
    found = evaluate(claim(cells={"domain": "food101"}), Evidence(scores, absent=absent))
    assert found.verdict == "not run"
    assert found.reason == "food101 was not run (no data in data/food101)"


def test_a_claim_about_several_domains_is_not_judged_on_some(scores: pd.DataFrame) -> None:
    found = evaluate(claim(cells={"domain": ["tabletop", "food101"], "n": "largest"}), Evidence(scores))
    assert (found.verdict, found.reason) == ("not run", "without food101 it is another claim")


def test_the_largest_n_is_that_of_the_study_also_before_it_is_run(scores: pd.DataFrame) -> None:
    wanted = claim(cells={"domain": "tabletop", "n": "largest"})
    largest = int(scores["n"].max())
    for waiting in ({("tabletop", "glare"): largest + 1}, {("tabletop", "diet_cp"): largest}):
        assert evaluate(wanted, Evidence(scores, waiting=waiting)).verdict != "not run"
    found = evaluate(wanted, Evidence(scores, waiting={("tabletop", "diet_cp"): largest + 1}))
    assert found.verdict == "not run"
    assert found.reason == f"diet_cp was not run at n = {largest + 1} of tabletop"


def test_methods_are_compared_at_equal_images(scores: pd.DataFrame) -> None:
    wanted = claim(cells={"method": "glare", "reference": "dino"})
    assert evaluate(wanted, Evidence(scores)).verdict == "reproduced"
    far = scores.copy()
    far.loc[far["method"].eq("glare") & far["images_seen"].eq(12_800), ["value", "images_seen"]] = [0.0, 50_000]
    found = evaluate(wanted, Evidence(far))  # the last milestone that both have is 4,800
    common = evaluate(wanted, Evidence(scores[scores["images_seen"] <= 4_800]))
    assert found.measured == common.measured
    apart = scores.assign(
        images_seen=scores["images_seen"].where(scores["method"] != "glare", scores["images_seen"] + 7)
    )
    apart.loc[apart["method"].eq("glare"), "images_seen"] *= 2
    found = evaluate(wanted, Evidence(apart))
    assert found.verdict == "not run"
    assert "at equal images seen" in found.reason


def test_own_questions_are_answered(scores: pd.DataFrame) -> None:
    def answer(**fields: object) -> str:
        return evaluate(claim(published=False, **fields), Evidence(scores)).verdict

    assert answer(cells={"method": "v_pretraining"}) == "yes"
    assert answer(cells={"method": "mae"}) == "no"
    assert answer(cells={"method": "v_pretraining_random_mask"}) == "open"
    assert answer(cells={"method": "mystery"}) == "not run"


def test_the_projects_claims_are_valid_and_honest(claims_file: Path) -> None:
    found = read_claims(claims_file)
    claims = {one.id: one for one in found.claims}
    assert len(claims) > 60
    assert found.head_room == 5
    losses = {name for name, one in claims.items() if one.direction == "worse"}
    assert {"diet_cp.food101.knn", "diet_cp.cars196.linear", "diet_cp.organa.knn", "step0.dino.miou"} <= losses
    rmse = claims["v_pretraining.nyuv2.vit_b"]
    assert rmse.paper_value == pytest.approx(100 * (0.5888 - 0.5697) / 0.5888, abs=0.005)
    assert rmse.tolerance == pytest.approx(rmse.paper_value / 2)
    assert rmse.statement.startswith("V-pretraining lowers depth RMSE on NYUv2")
    assert all(one.statement.endswith("?") != one.published for one in claims.values())
    assert claims["diet_cp.breast.knn"].statement == "DIET-CP raises kNN macro-F1 on BreastMNIST (80.5 to 87.7)."
    assert claims["diet_cp.breast.knn"].cells.n == "largest"
    assert claims["diet_cp.derma.knn"].cells.n == (1000,)


def entry(**changes: object) -> dict[str, object]:
    whole = {"id": "x.{row}.{metric}", "statement": "s", "source": "p", "metrics": {"iou": "miou"}}
    cells = {"method": "diet_cp", "reference": "base"}
    return whole | {"cells": cells, "rows": {"a": {"domain": "camvid", "iou": [0.4, 0.5]}}} | changes


def write(path: Path, *entries: dict[str, object], **more: object) -> Path:
    path.write_text(yaml.safe_dump({"head_room": 5, "entries": list(entries)} | more))
    return path


def test_an_entry_is_a_claim_for_each_row_and_metric(tmp_path: Path) -> None:
    rows = {"a": {"domain": "camvid", "iou": [0.4, 0.5]}, "b": {"n": 100, "error": [0.8, 1.0]}, "c": {"n": 7}}
    text = "{method} {raises} {label} on {domain} from {before} to {after}"
    one = entry(metrics={"iou": "miou", "error": "rmse"}, rows=rows, statement=text, direction="better")
    two = {key: value for key, value in one.items() if key != "direction"} | {"rows": {"b": rows["b"]}, "id": "y.{row}"}
    claims = {c.id: c for c in read_claims(write(tmp_path / "c.yaml", one | {"rows": {"c": rows["c"]}}, two)).claims}
    assert set(claims) == {"x.c.iou", "x.c.error", "y.b"}
    assert (claims["y.b"].paper_value, claims["y.b"].direction) == (-25.0, "worse")  # a higher error is a loss
    assert claims["y.b"].statement == "DIET-CP raises depth RMSE on any from 0.8 m to 1 m"
    assert (claims["x.c.iou"].paper_value, claims["x.c.iou"].cells.n) == (None, (7,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "entries.0.colour"),
        ({"metrics": {"iou": "accuracy"}}, "entries.0.metrics.iou"),
        ({"rows": {"a": {"domains": ["a"], "iou": [0.1, 0.2]}}}, r"x\..*cells.domains"),
        ({"rows": {"a": {"iou": [0.1]}}}, r"x\..*expected \[before, after\]"),
        ({"rows": {"a": {}}, "direction": "better", "paper_value": -1.0}, "contradicts direction"),
        ({"rows": {"a": {}}, "direction": "better", "tolerance": 1.0}, "tolerance needs a paper_value"),
        ({"rows": {"a": {}}}, "direction"),
        ({"statement": "{nothing}"}, "known {names}"),
        ({"source": 3}, "entries.0.source"),
    ],
)
def test_wrong_claims_are_one_clear_error(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = write(tmp_path / "claims.yaml", entry(**change))
    with pytest.raises(UserError, match=message) as caught:
        read_claims(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_repeated_id_and_broken_yaml(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    with pytest.raises(UserError, match=r"x\.a\.iou occurs more than once"):
        read_claims(write(path, entry(), entry()))
    with pytest.raises(UserError, match="head_room"):
        read_claims(write(path, entry(), head_room=-1))
    path.write_text("claims: [")
    with pytest.raises(UserError, match="expected YAML") as caught:
        read_claims(path)
    assert "\n" not in str(caught.value)


def test_make_claims_writes_the_contract(small: Path, claims_file: Path, tmp_path: Path) -> None:
    commands.make_claims(small, claims_file, tmp_path, "embedded")
    found = json.loads((tmp_path / "claims.json").read_text())
    assert len(found) == len(read_claims(claims_file).claims)
    assert all(set(one) >= KEYS for one in found)
    assert {one["verdict"] for one in found} <= set(VERDICTS)
    assert all(one["reason"] for one in found if one["verdict"] == "not run")
    assert {one["interval_covers"] for one in found if one["measured"] is not None} == {"seeds and test images"}
    page = (tmp_path / "claims.md").read_text()
    assert all(one["id"] in page for one in found)
    assert "## The rule" in page
    assert StudyFiles(tmp_path).claims[0].id == found[0]["id"]
    with pytest.raises(UserError, match="no row of study other"):
        commands.make_claims(small, claims_file, tmp_path, "other")


def result(verdict: str, **changes: object) -> Result:
    fields = {"id": "x", "statement": "s", "source": "p", "paper_value": None, "tolerance": None, "reason": "r"}
    about = {"metric": "miou", "unit": "points", "method": "diet_cp", "reference": "base", "direction": "better"}
    return Result.model_validate({**fields, **about, "published": True, "verdict": verdict, **changes})


def test_the_line_above_the_table_says_what_was_reproduced_and_what_not_tested() -> None:
    results = [result("reproduced", id="a"), result("budget too small", id="b"), result("not run", id="c")]
    results += [result("not run", method="v_pretraining_ade_base"), result("yes", published=False)]
    line = reproduced_line(results)
    assert line.startswith("Of 4 published claims 2 were tested here: 1 reproduced (`a`), 1 budget too small.")
    assert "2 were not tested (DIET-CP 1, V-pretraining 1)" in line
    assert "\n" not in line
    assert reproduced_line([result("yes", published=False)]) == ""


def test_short_table_holds_what_could_be_judged() -> None:
    size = {"paper_value": 4.9, "measured": 1.0, "ci_low": 0.5, "ci_high": 1.5, "mde": 0.7, "p_sign_flip": 0.0625}
    known = result("reproduced", statement="known one", paper_size="excluded", **size)
    text = verdicts_markdown([result("inconclusive", statement="undecided"), known, result("not run", statement="no")])
    assert "+4.90 | +1.00 [+0.50, +1.50] points | 0.70 | 0.0625 | **reproduced**; the reported size is excluded" in text
    assert text.index("known one") < text.index("undecided")
    assert ": no |" not in text
    assert "3 published claims: 1 reproduced, 1 inconclusive, 1 not run." in text
    own = verdicts_markdown([result("no", published=False), known])
    assert "1 published claims: 1 reproduced; 1 questions of this study: 1 no." in own
    page = to_markdown([known, result("no", published=False, statement="own one")], "embedded")
    assert page.index("## Published claims") < page.index("known one") < page.index("## Questions of this study")
