from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from lowdata_cpt.analysis import commands
from lowdata_cpt.analysis.outcomes import Outcomes
from lowdata_cpt.analysis.study_files import StudyFiles
from lowdata_cpt.analysis.summary import (
    by_domain,
    cell_statistics,
    covers_text,
    gain_curve,
    loss_table,
    main_sizes,
    rank_table,
    references_of,
    seeds_text,
    summary,
)
from lowdata_cpt.analysis.table import COLUMNS, at_end
from lowdata_cpt.core.errors import UserError

FORBIDDEN = ("torch", "timm", "torchvision", "sklearn", "snakemake")


def test_analysis_imports_neither_torch_nor_the_workflow() -> None:
    code = (
        "import pkgutil, importlib, sys, lowdata_cpt.analysis as package\n"
        "names = [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + '.')]\n"
        "assert len(names) > 12, names\n"
        "[importlib.import_module(name) for name in names]\n"
        f"print([name for name in {FORBIDDEN!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_make_statistics(small: Path, tmp_path: Path) -> None:
    paths = commands.make_statistics(small, tmp_path)
    tables = {path.stem: pd.read_csv(path) for path in paths if path.suffix == ".csv"}
    always = {"cells", "domains", "summary", "curve", "stopped", "ranks"}
    assert set(tables) == always | {"losses", "preconditions"}
    assert len(tables["cells"]) == (3 + 2 * 4) * 10
    assert set(tables["summary"]["family"]) == {"base", "control", "before", "trend"}
    for name in ("summary", "domains"):
        assert (tables[name]["p_holm"] >= tables[name]["p"]).all()
        assert set(tables[name]["interval_covers"]) == {"seeds and test images"}
        assert (tables[name]["mde"] > 0).all()
        assert tables[name]["p_sign_flip"].between(0, 1).all()
    covers = tables["cells"].groupby("metric")["interval_covers"].agg(lambda found: set(found.dropna()))
    assert covers["linear_auc"] == {"seeds"}
    assert covers["knn_macro_f1"] == {"seeds and test images"}
    assert set(tables["curve"]["images_seen"]) == {0, 1_600, 4_800, 12_800}
    assert set(tables["preconditions"]["acted"]) == {True}


def test_what_an_interval_covers_is_said() -> None:
    both, seeds = "seeds and test images", "seeds"
    rows = pd.DataFrame(
        {"metric": ["miou", "knn_accuracy", "rmse", "rmse"], "interval_covers": [seeds, both, seeds, ""]}
    )
    assert covers_text(rows) == (
        "Intervals cover seeds (Segmentation mIoU, Depth RMSE); seeds and test images (kNN accuracy)."
    )
    assert covers_text(rows[rows["metric"] == "rmse"]) == "Intervals cover seeds."
    assert covers_text(rows.assign(interval_covers="")) == "One seed and no outcomes: no interval."


def test_curves_begin_at_the_methods_own_step_zero(scores: pd.DataFrame) -> None:
    from scipy import stats as reference

    rows = scores[scores["domain"].eq("nyuv2") & scores["metric"].eq("rmse") & scores["split"].eq("test")]
    value = rows.set_index(["method", "n", "seed", "images_seen"])["value"]
    key = ["method", "n", "metric", "images_seen"]
    curve = gain_curve(rows).set_index(key)
    for images, place in ((0, ("base_domain_norm", 0)), (4_800, ("diet_cp", 250)), (12_800, ("diet_cp", 250))):
        base = [value["base", 0, seed, 0] for seed in range(3)]
        gains = [100 * (base[seed] - value[(*place, seed, images)]) / base[seed] for seed in range(3)]
        low, high = reference.ttest_1samp(gains, 0).confidence_interval(0.95)
        row = curve.loc[("diet_cp", 250, "rmse", images)]
        assert tuple(row[["mean", "ci_low", "ci_high"]]) == pytest.approx((sum(gains) / 3, low, high))
        assert (row["seeds"], row["interval_covers"]) == (3, "seeds")
    assert curve.loc[("glare", 250, "rmse", 0), "mean"] == 0
    over = gain_curve(rows, "dino").set_index(key)
    expected = [100 * (1 - value["tec", 100, s, 1_600] / value["dino", 100, s, 1_600]) for s in range(3)]
    assert over.loc[("tec", 100, "rmse", 1_600), "mean"] == pytest.approx(sum(expected) / 3)
    assert "dino" not in over.reset_index()["method"].to_numpy()


def write_classes(folder: Path, *, without: str = "") -> pd.DataFrame:
    """Write predicted classes of 400 test images for two seeds; return the rows whose scores they are."""
    rng = np.random.default_rng(5)
    truth, rows, arrays = rng.integers(0, 4, 400).astype(np.int16), [], {}
    right = {
        ("base", 0, 0): 0.5,
        ("base_domain_norm", 0, 0): 0.55,
        ("diet_cp", 100, 1000): 0.6,
        ("diet_cp", 100, 2000): 0.7,
    }
    for seed in range(2):
        for (method, n, seen), share in right.items():
            guess = np.where(rng.random(400) < share, truth, (truth + 1) % 4).astype(np.int16)
            if f"{method}/{seen}" != without:
                arrays[f"{method}/n{n}/s{seed}/i{seen}/linear/knn"] = guess
            value = float((guess == truth).mean())
            rows.append(["x", "vit", "cifar10", method, n, seed, "linear", "knn_accuracy", "test", value, seen, 1.0])
    folder.mkdir()
    np.savez(folder / "vit-cifar10.npz", **{"truth/linear": truth, **arrays})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_a_curve_covers_test_images_at_every_milestone(tmp_path: Path) -> None:
    rows = write_classes(tmp_path / "outcomes")
    curve = gain_curve(rows, outcomes=Outcomes(tmp_path / "outcomes")).set_index("images_seen")
    assert list(curve.index) == [0, 1000, 2000]
    assert set(curve["interval_covers"]) == {"seeds and test images"}
    arrays = np.load(tmp_path / "outcomes" / "vit-cifar10.npz")
    for seen, place in ((0, "base_domain_norm/n0"), (1000, "diet_cp/n100"), (2000, "diet_cp/n100")):
        gained = [
            1.0 * (arrays[f"{place}/s{seed}/i{seen}/linear/knn"] == arrays["truth/linear"])
            - (arrays[f"base/n0/s{seed}/i0/linear/knn"] == arrays["truth/linear"])
            for seed in range(2)
        ]
        assert curve.loc[seen, "mean"] == pytest.approx(100 * np.mean(gained))
        # In closed form, as the gain is a mean over images.
        of_images = np.mean(gained, axis=0).var() / 400
        of_seeds = np.mean(gained, axis=1).var(ddof=1) + np.subtract(*gained).var() / 2 / 400
        freedom = (of_images + of_seeds / 2) ** 2 / (of_images**2 / 399 + (of_seeds / 2) ** 2)
        half = student.ppf(0.975, freedom) * 100 * np.sqrt(of_images + of_seeds / 2)
        assert curve.loc[seen, "ci_high"] - curve.loc[seen, "mean"] == pytest.approx(half, rel=0.05)


@pytest.mark.parametrize("without", ["diet_cp/1000", "base_domain_norm/0", "base/0"])
def test_a_curve_without_one_milestones_outcomes_covers_seeds_throughout(tmp_path: Path, without: str) -> None:
    rows = write_classes(tmp_path / "outcomes", without=without)
    assert set(gain_curve(rows, outcomes=Outcomes(tmp_path / "outcomes"))["interval_covers"]) == {"seeds"}


def test_a_study_that_trained_nothing_has_empty_tables(scores: pd.DataFrame) -> None:
    untrained = scores[scores["n"].eq(0)]
    assert gain_curve(untrained).empty
    assert summary(untrained).empty
    assert by_domain(untrained).empty
    cells = cell_statistics(untrained)
    assert len(cells) > 0
    assert cells["shown_gain"].isna().all()


def test_the_main_size_is_the_one_with_most_methods(scores: pd.DataFrame) -> None:
    rows = scores[scores["domain"].eq("tabletop")]
    assert set(main_sizes(rows)["n"]) == {0, 100}
    few = rows[rows["method"].isin(["base", "diet_cp"]) | rows["n"].isin([500, 1000])]
    assert set(main_sizes(few)["n"]) == {0, 500}


def test_cell_statistics_are_the_paired_t_interval(scores: pd.DataFrame) -> None:
    from scipy import stats as reference

    cells = cell_statistics(scores).set_index(["domain", "method", "n", "metric"])
    rows = scores[scores["domain"].eq("nyuv2") & scores["metric"].eq("rmse") & scores["split"].eq("test")]
    value = at_end(rows).set_index(["method", "n", "seed"])["value"].sort_index()
    base, tec = ([value[name, n, seed] for seed in range(3)] for name, n in (("base", 0), ("tec", 250)))
    gains = [100 * (base[seed] - tec[seed]) / base[seed] for seed in range(3)]
    low, high = reference.ttest_1samp(gains, 0).confidence_interval(0.95)
    row = cells.loc[("nyuv2", "tec", 250, "rmse")]
    assert tuple(row[["shown_gain", "shown_low", "shown_high"]]) == pytest.approx((sum(gains) / 3, low, high))
    assert row["gain"] == pytest.approx((sum(base) - sum(tec)) / 3)
    assert row["images_seen"] == 12_800
    assert row["sd"] == pytest.approx(value["tec", 250].std())
    seconds = at_end(rows).query("method == 'tec' and n == 250")["train_seconds"]
    assert row["train_seconds"] == sorted(seconds)[1], "one run beside other work must not make a method look dear"
    assert row["p"] == pytest.approx(reference.ttest_1samp(gains, 0).pvalue)


def test_seeds_are_counted_by_cell() -> None:
    place = {"backbone": "b", "domain": "d", "method": "tec"}
    table = pd.DataFrame([place | {"n": n, "seed": seed} for n, seeds in ((9, 1), (10, 3)) for seed in range(seeds)])
    assert [seeds_text(table[table["n"].isin(n)]) for n in ([9], [10], [9, 10])] == ["1 seed", "3 seeds", "1–3 seeds"]


def test_summary_finds_the_effects_that_were_put_in(scores: pd.DataFrame) -> None:
    table = summary(scores).set_index(["family", "method", "metric", "n"]).sort_index()
    row = table.loc[("base", "diet_cp", "knn_accuracy", 100)]
    assert row["ci_low"] > 0
    assert row["p_holm"] < 0.05
    assert row["p_sign_flip"] == pytest.approx(2 / 2**9)  # three domains of three seeds, all of one sign
    assert table.loc[("base", "mae", "miou", 100), "ci_high"] < 0
    assert table.loc[("control", "tec", "miou", 100), "reference"] == "mae"
    assert table.loc[("parent", "glare_no_regional", "miou", 100), "reference"] == "glare"
    assert table["equal_images"].all()
    for _, family in table.groupby(level="family"):  # Holm's correction is over a family
        assert len(family) < len(table)
        for name in ("p", "p_sign_flip"):
            least = family[name].min()
            assert family[f"{name}_holm"].min() == pytest.approx(min(1, len(family) * least))


def test_trend_is_the_paired_change_from_the_smallest_to_the_largest_n(scores: pd.DataFrame) -> None:
    from scipy import stats as reference

    nyuv2 = scores[scores["domain"].eq("nyuv2")]
    test = at_end(nyuv2[nyuv2["split"].eq("test") & nyuv2["metric"].eq("miou")])
    value = test.set_index(["method", "n", "seed"])["value"]
    changes = [100 * (value["glare", 795, seed] - value["glare", 100, seed]) for seed in range(3)]
    row = summary(nyuv2).set_index(["family", "method", "metric"]).loc[("trend", "glare", "miou")]
    assert row["n"] == ""
    low, high = reference.ttest_1samp(changes, 0).confidence_interval(0.95)
    assert (row["mean"], row["ci_low"], row["ci_high"]) == pytest.approx((sum(changes) / 3, low, high))
    one_size = summary(nyuv2[nyuv2["n"].isin([0, 100])])
    assert "trend" not in set(one_size["family"])
    unequal = at_end(nyuv2)
    unequal["images_seen"] = unequal["images_seen"].where(unequal["n"] < 795, 795)
    row = summary(unequal).set_index(["family", "method", "metric"]).loc[("trend", "glare", "miou")]
    assert not row["equal_images"]


def test_domains_are_what_the_summary_pools(scores: pd.DataFrame) -> None:
    from scipy import stats as reference

    table = by_domain(scores).set_index(["family", "method", "metric", "n", "domain"]).sort_index()
    rows = scores[scores["domain"].eq("nyuv2") & scores["metric"].eq("miou") & scores["split"].eq("test")]
    value = at_end(rows).set_index(["method", "n", "seed"])["value"]
    gains = [100 * (value["glare", 100, seed] - value["base", 0, seed]) for seed in range(3)]
    low, high = reference.ttest_1samp(gains, 0).confidence_interval(0.95)
    row = table.loc[("base", "glare", "miou", 100, "nyuv2")]
    assert (row["mean"], row["ci_low"], row["ci_high"]) == pytest.approx((sum(gains) / 3, low, high))
    pooled = summary(scores).set_index(["family", "method", "metric", "n"]).sort_index()
    for n in (100, 250, 795):  # 795 on one domain only
        part = table.loc[("base", "glare", "miou", n)]
        assert pooled.loc[("base", "glare", "miou", n), "mean"] == pytest.approx(part["mean"].mean())
        assert pooled.loc[("base", "glare", "miou", n), "domains"] == len(part)


def test_losses_are_those_of_the_first_the_last_and_the_lowest_step() -> None:
    place = {"backbone": "b", "domain": "tabletop", "method": "tec", "n": 100}
    runs = {0: [3.0, 1.0, 2.0], 1: [5.0, 4.0, 6.0], 2: [10.0, 8.0, 9.0]}
    curves = pd.DataFrame(
        [
            {**place, "seed": seed, "step": step, "part": part, "value": value}
            for seed, values in runs.items()
            for step, value in reversed(list(enumerate(values)))
            for part in ("loss", "lr")
        ]
    )
    (row,) = loss_table(curves).to_dict("records")
    place = {"method": "tec", "part": "loss", "domain": "tabletop"}
    assert row == place | {"runs": 3, "first": 5.0, "last": 6.0, "mean": pytest.approx(16 / 3), "lowest": 1.0}


def test_references() -> None:
    assert references_of("glare") == {"base": "base", "control": "dino"}
    assert references_of("dino") == {"base": "base"}
    assert references_of("diet_cp") == {"base": "base", "control": "dino", "before": "base_domain_norm"}
    assert references_of("v_pretraining_random_mask") == {"parent": "v_pretraining"}


def test_methods_are_ranked_in_the_cells_that_all_of_them_have() -> None:
    place = {"backbone": "b", "domain": "nyuv2", "split": "test", "seed": 0, "images_seen": 9}
    scores = {("depth", "rmse", 9): (0.4, 0.6), ("segmentation", "miou", 9): (0.4, 0.6)}
    scores |= {("depth", "rmse", 10): (0.3, 0.5), ("depth", "rmse", 11): (0.9, None)}  # a lower error ranks first
    rows = [
        place | {"task": task, "metric": metric, "n": n, "method": method, "value": value}
        for (task, metric, n), values in scores.items()
        for method, value in zip(("tec", "mae"), values, strict=True)
        if value is not None
    ]
    table = rank_table(pd.DataFrame(rows)).set_index(["metric", "method"])
    assert table["mean_rank"].unstack()[["tec", "mae"]].T.to_dict("list") == {
        "rmse": [1.0, 2.0], "miou": [2.0, 1.0], "all": [pytest.approx(4 / 3), pytest.approx(5 / 3)]
    }  # fmt: skip
    assert table["cells"].unstack()["tec"].to_dict() == {"rmse": 2, "miou": 1, "all": 3}
    assert table["concordance"].unstack()["tec"].dropna().to_dict() == {"rmse": 1.0, "all": pytest.approx(1 / 9)}


def test_mean_scores_hold_the_test_means(tmp_path: Path) -> None:
    place = ["s", "b", "camvid", "tec", 100]
    rows = [
        [*place, seed, "segmentation", "miou", split, value, images, 1.0]
        for seed, split, value in ((0, "test", 0.4), (1, "test", 0.5), (0, "val", 0.9), (1, "val", 0.8))
        for images, value in ((50, 0.1), (100, value))
    ]
    pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(tmp_path / "scores.csv", index=False)
    assert commands.mean_scores(pd.read_csv(tmp_path / "scores.csv")) == {
        "b": {"camvid": {"tec": {"n100": {"segmentation.miou": 0.45}}}}
    }


@pytest.mark.parametrize(
    "content",
    ["[]", "null", "5", '{"methods": null}', '{"methods": {"dino": 5}}', '{"methods": {"dino": {"optimiser": null}}}',
     '{"domains": [1]}', '{"domains": {"a": 5}}'],
)  # fmt: skip
def test_wrong_settings_are_one_clear_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(content)
    for name in ("before", "own"):
        with pytest.raises(UserError, match=r"study.json: expected a study's settings"):
            getattr(StudyFiles(tmp_path), name)


def test_wrong_claims_json_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "claims.json").write_text("[1]")
    with pytest.raises(UserError, match="list of judged claims"):
        _ = StudyFiles(tmp_path).claims
