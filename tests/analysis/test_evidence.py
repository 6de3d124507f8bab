"""Which of a table's cells a claim is judged on, and which are left out of it."""

from __future__ import annotations

import pandas as pd
import pytest

from lowdata_cpt.analysis.claims import Evidence, evaluate
from tests.analysis.test_claims import claim

TWO = {"domain": ["tabletop", "cifar10"]}


def idle(method: str, *domains: str) -> pd.DataFrame:
    place = {"backbone": "vits14_imgfocus", "method": method, "part": "loss", "asks": "loss ends below 4.51"}
    facts = {"value": 4.6, "level": 4.51, "runs": 3, "acted": False}
    shares = {"share_images": 0.067, "share_updates": 0.067, "share_rate_images": 0.013}
    return pd.DataFrame([{**place, "domain": d, "n": n, **facts, **shares} for d in domains for n in (100, 1000)])


def test_one_domain_of_one_seed_leaves_the_whole_claim_open(scores: pd.DataFrame) -> None:
    wanted = claim(metric="knn_macro_f1", cells=TWO)
    assert evaluate(wanted, Evidence(scores)).verdict == "reproduced"
    found = evaluate(wanted, Evidence(scores[scores["domain"].ne("cifar10") | scores["seed"].eq(0)]))
    assert (found.verdict, found.reason) == ("inconclusive", "one seed gives no verdict")


def test_a_domain_counts_only_where_base_beats_random_weights(scores: pd.DataFrame) -> None:
    wanted = claim(metric="knn_macro_f1", cells={"domain": ["tabletop", "cifar10"]})
    flat = scores.copy()
    rows = flat["domain"].eq("tabletop") & flat["method"].eq("random") & flat["metric"].eq("knn_macro_f1")
    flat.loc[rows, "value"] = 0.58
    found = evaluate(wanted, Evidence(flat, head_room=5))
    assert found.cells.startswith("vits14_imgfocus/cifar10")
    assert "the base hardly beats random weights" in found.reason
    assert evaluate(wanted, Evidence(flat, head_room=0)).cells.count("×") == 2
    only = evaluate(claim(metric="knn_macro_f1", cells={"domain": "tabletop"}), Evidence(flat, head_room=5))
    assert only.verdict == "inconclusive"


def test_head_room_of_an_error_is_a_share_of_the_bases(scores: pd.DataFrame) -> None:
    """Random weights have 1.5 times the base's error: 50 %, whatever the metres."""
    wanted = claim(metric="rmse", cells={"method": "v_pretraining", "domain": ["tabletop", "nyuv2"]})
    assert evaluate(wanted, Evidence(scores, head_room=49.9)).cells.count("×") == 2
    found = evaluate(wanted, Evidence(scores, head_room=50.1))
    assert found.verdict == "inconclusive"
    assert found.reason.startswith("without NYUv2 (+50.0), Tabletop (+50.0): the base hardly beats")


def test_a_verdict_needs_a_method_that_acted(scores: pd.DataFrame) -> None:
    wanted = claim(metric="knn_macro_f1", paper_value=4.9, cells={"domain": ["tabletop", "cifar10"], "n": 1000})
    assert evaluate(wanted, Evidence(scores)).verdict == "reproduced"
    part = evaluate(wanted, Evidence(scores, checks=idle("diet_cp", "tabletop")))
    assert part.verdict == "reproduced"
    assert part.cells.startswith("vits14_imgfocus/cifar10")
    assert "did not act on Tabletop" in part.reason
    none = evaluate(wanted, Evidence(scores, checks=idle("diet_cp", "tabletop", "cifar10")))
    assert (none.verdict, none.paper_size) == ("budget too small", None)
    assert "6.7 % of the images, 6.7 % of the updates, 1.3 % of the rate × images of its source's run" in none.reason
    own = wanted.model_copy(update={"published": False})
    assert evaluate(own, Evidence(scores, checks=idle("diet_cp", "tabletop", "cifar10"))).verdict == "open"
    control = claim(metric="knn_macro_f1", cells={"reference": "dino", "domain": "cifar10"})
    assert evaluate(control, Evidence(scores, checks=idle("dino", "cifar10"))).verdict == "budget too small"


def test_only_the_sizes_at_which_a_method_did_not_act_are_left_out(scores: pd.DataFrame) -> None:
    checks = idle("diet_cp", "tabletop").query("n == 100")
    both, alone = (claim(metric="knn_macro_f1", cells={"domain": "tabletop", "n": n}) for n in ([100, 1000], 1000))
    found = evaluate(both, Evidence(scores, checks=checks))
    assert found.cells == "vits14_imgfocus/tabletop n=1000 ×3 seeds"
    assert found.measured == pytest.approx(evaluate(alone, Evidence(scores)).measured)


def test_a_variant_that_takes_a_part_out_need_not_act(scores: pd.DataFrame) -> None:
    wanted = claim(cells={"method": "v_pretraining", "reference": "v_pretraining_random_mask", "domain": "tabletop"})
    checks = idle("v_pretraining_random_mask", "tabletop")
    found = evaluate(wanted, Evidence(scores, checks=checks))
    assert found == evaluate(wanted, Evidence(scores))
    assert found.measured is not None
