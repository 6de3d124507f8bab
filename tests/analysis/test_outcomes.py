from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score

from lowdata_cpt.analysis.measure import change_with_n, domain_gain, gains, pooled_gain
from lowdata_cpt.analysis.outcomes import DRAWS, Outcomes, draws_of_images, read_outcomes, weighted_metrics
from lowdata_cpt.analysis.stats import joint_interval, minimum_detectable_effect
from lowdata_cpt.analysis.table import at_end, held_out, read_scores
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.probes.metrics import segmentation_metrics


def test_weighted_classification_is_sklearns_on_repeated_images() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(4, size=30), rng.integers(6, size=30)  # two classes are never true
    weights = np.stack([np.ones(30), rng.multinomial(30, np.full(30, 1 / 30))]).astype(float)
    found = weighted_metrics("linear/bank_knn", predicted, truth, weights)
    for b, counts in enumerate(weights.astype(int)):
        t, p = truth.repeat(counts), predicted.repeat(counts)
        assert found["bank_knn_accuracy"][b] == pytest.approx(accuracy_score(t, p))
        assert found["bank_knn_macro_f1"][b] == pytest.approx(f1_score(t, p, average="macro", zero_division=0))


def test_weighted_segmentation_is_the_probes() -> None:
    rng = np.random.default_rng(1)
    confusion = rng.integers(0, 9, (5, 4, 4))
    confusion[:, 3] = confusion[:, :, 3] = 0  # a class that never occurs
    confusion[1:, 2] = confusion[1:, :, 2] = 0  # one that only the first image has
    counts = np.stack([np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(2), confusion.sum(1)], axis=-1)
    weights = np.array([[1, 1, 1, 1, 1], [0, 2, 0, 1, 2]], dtype=float)
    found = weighted_metrics("segmentation/counts", counts, None, weights)
    for b, times in enumerate(weights.astype(int)):
        expected = segmentation_metrics(counts.repeat(times, axis=0))
        assert {name: found[name][b] for name in found} == pytest.approx(expected)


def test_weighted_depth_leaves_out_images_without_depth() -> None:
    errors = np.array([[1.0, 0.1, 0.9], [3.0, 0.3, 0.5], [np.nan] * 3], dtype=np.float32)
    found = weighted_metrics("depth/errors", errors, None, np.array([[1.0, 1, 1], [3, 1, 5]]))
    assert found["rmse"] == pytest.approx([2.0, 1.5])
    assert found["delta1"] == pytest.approx([0.7, 0.8])


def test_draws_are_bootstrap_samples_and_the_same_every_time() -> None:
    drawn = draws_of_images(40)
    assert drawn.shape == (DRAWS, 40)
    assert (drawn.sum(axis=1) == 40).all()
    draws_of_images.cache_clear()
    assert (draws_of_images(40) == drawn).all()


def test_groups_are_drawn_whole_and_make_intervals_wider(tmp_path: Path) -> None:
    """Ten videos of eight equal frames tell as much as ten images."""
    videos = np.repeat(np.arange(10), 8)
    drawn = draws_of_images(80, tuple(videos))
    assert (drawn.reshape(DRAWS, 10, 8) == drawn.reshape(DRAWS, 10, 8)[..., :1]).all()
    assert (drawn.sum(axis=1) == 80).all()
    right = np.repeat(np.arange(10) % 2, 8).astype(np.int16)
    row = {"backbone": "b", "domain": "d", "method": "m", "n": 1, "seed": 0, "images_seen": 1, "metric": "knn_accuracy"}
    entries = {"m/n1/s0/i1/linear/knn": right, "truth/linear": np.ones(80, np.int16)}
    spread = {}
    for name, more in {"alone": {}, "grouped": {"groups/linear": videos}}.items():
        (tmp_path / name / "outcomes").mkdir(parents=True)
        np.savez(tmp_path / name / "outcomes" / "b-d.npz", **entries, **more)
        outcomes = read_outcomes(tmp_path / name)
        found = outcomes.replicates(row)
        assert found is not None
        spread[name] = found.std()
        assert outcomes.count("b", "d", "knn_accuracy") == 80
        assert outcomes.drawn("b", "d", "knn_accuracy") == (10 if more else 80)  # their degrees of freedom
    assert spread["grouped"] / spread["alone"] == pytest.approx(np.sqrt(8), rel=0.05)


def test_gains_of_a_study_cover_test_images(small: Path) -> None:
    test = held_out(read_scores(small / "scores.csv"))
    outcomes = read_outcomes(small)
    rows = gains(test, "base", outcomes)
    part = rows[rows["method"].eq("diet_cp") & rows["metric"].eq("rmse") & rows["n"].eq(100)]
    with np.load(small / "outcomes" / "vits14_imgfocus-tabletop.npz") as arrays:
        drawn = []
        for seed in range(2):
            own = arrays[f"diet_cp/n100/s{seed}/i12800/depth/errors"][:, 0].astype(float)
            base = arrays[f"base/n0/s{seed}/i0/depth/errors"][:, 0].astype(float)
            known, weights = ~np.isnan(own), draws_of_images(len(own))
            means = [(weights[:, known] @ one[known]) / weights[:, known].sum(1) for one in (own, base)]
            drawn.append(100 * (means[1] - means[0]) / means[1])
    expected = joint_interval(part["shown_gain"], np.array(drawn), len(own))
    found = domain_gain(part)
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.low, expected.high))
    assert found.interval.covers == "seeds and test images"
    effect = minimum_detectable_effect(expected.standard_error, expected.degrees_of_freedom)
    assert (found.row()["mde"], found.row()["p"]) == pytest.approx((effect, expected.p_value))
    assert found.p_sign_flip in (0.5, 1.0)
    assert pooled_gain(part).interval.low == pytest.approx(found.interval.low)
    assert domain_gain(part.assign(replicates=None)).interval.covers == "seeds"
    assert domain_gain(part[part["seed"].eq(0)]).interval.covers == "test images"


def test_change_with_n_subtracts_the_samples_too(small: Path) -> None:
    rows = gains(held_out(read_scores(small / "scores.csv")), "base", read_outcomes(small))
    part = rows[rows["method"].eq("dino") & rows["metric"].eq("miou")]
    change = change_with_n(part)
    assert set(change["n"]) == {1000}
    of = part.set_index(["n", "seed"])
    row = change.set_index("seed").loc[1]
    assert row["shown_gain"] == pytest.approx(of.loc[(1000, 1), "shown_gain"] - of.loc[(100, 1), "shown_gain"])
    assert row["replicates"] == pytest.approx(of.loc[(1000, 1), "replicates"] - of.loc[(100, 1), "replicates"])
    middle = change_with_n(part, first=(100, 250), last=(500,)).set_index("seed").loc[0]
    early = (of.loc[(100, 0), "shown_gain"] + of.loc[(250, 0), "shown_gain"]) / 2
    assert middle["shown_gain"] == pytest.approx(of.loc[(500, 0), "shown_gain"] - early)
    assert change_with_n(part[part["n"].eq(100)]).empty


def test_a_gain_covers_test_images_only_where_all_its_runs_have_outcomes(small: Path) -> None:
    rows = gains(held_out(read_scores(small / "scores.csv")), "base", read_outcomes(small))
    part = rows[rows["method"].eq("dino") & rows["metric"].eq("miou")]
    holes = part.assign(replicates=part["replicates"].where(~(part["n"].eq(250) & part["seed"].eq(0)), None))
    assert domain_gain(holes).interval.covers == "seeds"
    for sizes in ({"first": (250,)}, {"first": (100, 250)}, {"first": (100,), "last": (250,)}):
        change = change_with_n(holes, **sizes).set_index("seed")["replicates"]
        assert [isinstance(change[seed], np.ndarray) for seed in (0, 1)] == [False, True]


def test_an_earlier_milestone_has_no_outcomes(small: Path) -> None:
    test = held_out(read_scores(small / "scores.csv"))
    early = test[test["images_seen"] < 12_800]
    found = gains(early, "base", read_outcomes(small))
    assert found["replicates"].isna().all()
    assert gains(at_end(test), "base", Outcomes())["replicates"].isna().all()


def test_wrong_files_are_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "outcomes").mkdir()
    (tmp_path / "outcomes" / "b-d.npz").write_text("no archive")
    row = {"backbone": "b", "domain": "d", "method": "m", "n": 1, "seed": 0, "images_seen": 1, "metric": "knn_accuracy"}
    with pytest.raises(UserError, match=r"b-d\.npz: expected an \.npz file") as caught:
        read_outcomes(tmp_path).replicates(row)
    assert "\n" not in str(caught.value)
    np.savez(tmp_path / "outcomes" / "b-d.npz", **{"m/n1/s0/i1/linear/knn": np.zeros(3, np.int16)})
    with pytest.raises(UserError, match="truth/linear is missing"):
        read_outcomes(tmp_path).replicates(row)
    assert read_outcomes(tmp_path).replicates(row | {"seed": 1}) is None
    # Opened, an .npz has read its list of arrays only.
    content = bytearray((tmp_path / "outcomes" / "b-d.npz").read_bytes())
    content[content.index(b"\x93NUMPY") + 1] ^= 1
    (tmp_path / "outcomes" / "b-d.npz").write_bytes(content)
    for read in (lambda one: one.replicates(row), lambda one: one.count("b", "d", "knn_accuracy")):
        with pytest.raises(UserError, match=r"b-d\.npz: expected an \.npz file"):
            read(read_outcomes(tmp_path))
    assert pd.isna(read_outcomes(tmp_path / "none").folder)


def test_a_cell_without_a_partner_takes_no_outcomes_from_the_others(small: Path) -> None:
    test = held_out(read_scores(small / "scores.csv"))
    lonely = test["method"].eq("base") & test["seed"].eq(0)
    rows = gains(test[~lonely], "base", read_outcomes(small))
    part = rows[rows["method"].eq("diet_cp") & rows["metric"].eq("rmse") & rows["n"].eq(100)]
    assert len(part)
    assert all(isinstance(one, np.ndarray) for one in part["replicates"])


def test_samples_of_images_without_labels_are_left_out_of_the_interval() -> None:
    counts = np.zeros((3, 2, 3), int)
    counts[0] = [[3, 4, 5], [2, 4, 3]]  # only the first image has labels
    weights = np.array([[1.0, 1, 1], [0, 2, 1], [3, 0, 0]])
    found = weighted_metrics("segmentation/counts", counts, None, weights)
    for values in (
        *found.values(),
        weighted_metrics("depth/errors", np.where(counts[:, 0] > 0, 1.0, np.nan), None, weights)["rmse"],
    ):
        assert np.isnan(values).tolist() == [False, True, False]
    drawn = np.array([[1.0, np.nan, 3.0, 2.0], [2.0, np.nan, 1.0, 2.0]])
    assert joint_interval([1.0, 2.0], drawn) == joint_interval([1.0, 2.0], drawn[:, [0, 2, 3]])
    assert joint_interval([1.0, 2.0], drawn).known
    drawn[1, 1] = 4.0  # of one seed alone: no pair
    assert joint_interval([1.0, 2.0], drawn) == joint_interval([1.0, 2.0], drawn[:, [0, 2, 3]])
    assert joint_interval([1.0, 2.0], drawn[:, :2]) == joint_interval([1.0, 2.0])
