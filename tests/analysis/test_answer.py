from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lowdata_cpt.analysis.answer import UNSCORED, answer_of, how_sure, own_bank_gains, sentences
from lowdata_cpt.analysis.preconditions import CELL
from lowdata_cpt.analysis.study_files import StudyFiles, study_files, time_words
from lowdata_cpt.analysis.table import HEADLINE
from tests.analysis import synthetic_study

BOTH = "seeds and test images"


def gain(
    method: str, domain: str, metric: str, mean: float, low: float, high: float, covers: str = BOTH, seeds: int = 5
) -> dict[str, Any]:
    """A row of `by_domain`."""
    place = {"backbone": "b", "domain": domain, "method": method, "metric": metric, "n": 100, "seeds": seeds}
    found = {"mean": mean, "ci_low": low, "ci_high": high, "interval_covers": covers, "mde": 2.0, "p_holm": 0.01}
    return {**place, **found}


STEEL = gain("diet_cp", "neu_steel", "knn_accuracy", 13.94, 12.06, 15.83)
SCENES = gain("glare", "tabletop", "miou", 1.04, 0.21, 1.87)
NOTHING = gain("mae", "cifar10", "knn_accuracy", 0.5, -1.0, 2.0)
HARM = gain("mae", "neu_steel", "linear_accuracy", -4.4, -6.0, -2.8)


def say(*rows: dict[str, Any], **options: Any) -> tuple[str, str, str]:
    return sentences(pd.DataFrame(list(rows)), **options)


def test_the_surest_gain_first_then_the_others_then_where_nothing_helps() -> None:
    first, second, third = say(
        SCENES, STEEL, NOTHING, HARM, spent={("b", "neu_steel", "diet_cp", 100): "7 minutes on one CPU core"}
    )
    assert first == (
        "100 images of NEU steel: DIET-CP, 7 minutes on one CPU core, +13.9 points of kNN accuracy [+12.1, +15.8]."
    )
    assert second == "Also: 100 images of Tabletop: GLARE, +1.0 points of segmentation mIoU [+0.2, +1.9]."
    assert third == (
        "No method helps beyond chance on CIFAR-10 (kNN accuracy), NEU steel (linear accuracy); harmful beyond chance: "
        "MAE (control) on NEU steel, −4.4 points of linear accuracy [−6.0, −2.8]."
    )


def test_what_the_labels_of_the_drawn_images_alone_gain_stands_beside_its_cell() -> None:
    cell = ("b", "neu_steel", "diet_cp", 100)
    words = "with only these 100 images labelled +20.0 points of kNN accuracy over the base"
    first, second, _ = say(SCENES, STEEL, own_bank={cell: words})
    assert first.endswith(f"kNN accuracy [+12.1, +15.8]; {words}.")
    assert second == "Also: 100 images of Tabletop: GLARE, +1.0 points of segmentation mIoU [+0.2, +1.9]."


def test_gains_with_the_drawn_labels_are_over_the_start_of_the_run(small: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small, tmp_path / "study"))
    table = pd.read_csv(folder / "scores.csv")
    run = table[table["method"].eq("diet_cp") & table["metric"].eq("knn_accuracy")]
    end = run["images_seen"].max()
    bank = run[run["images_seen"] == end].assign(metric="bank_knn_accuracy")
    start = bank.assign(images_seen=0, train_seconds=0.0, value=bank["value"] - 0.125)
    pd.concat([table, bank, start]).to_csv(folder / "scores.csv", index=False)
    found = own_bank_gains(StudyFiles(folder))
    assert found
    assert all("images labelled +12.5 points of kNN accuracy" in words for words in found.values())
    assert all(words.endswith("over the base normalised by the domain") for words in found.values())


@pytest.fixture(scope="module")
def own(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small study, as one of its reader's own images."""
    folder = Path(shutil.copytree(small, tmp_path_factory.mktemp("own") / "study"))
    domains = {"tabletop": {"kind": "imagefolder", "sizes": [100]}}
    (folder / "study.json").write_text(json.dumps({"domains": domains, "methods": {}}))
    return folder


def one_seed(folder: Path) -> None:
    table = pd.read_csv(folder / "scores.csv")
    table[table["seed"] == 0].to_csv(folder / "scores.csv", index=False)


def test_own_images_are_answered_by_a_sentence_a_method_and_task(own: Path) -> None:
    files = StudyFiles(own)
    said = answer_of(files).sentences
    rows = {(row["method"], row["metric"]): row for _, row in files.gains.iterrows()}
    assert len(said) == len(rows) == 8
    first = rows["diet_cp", "knn_accuracy"]
    numbers = f"{first['mean']:+.1f} points of kNN accuracy [{first['ci_low']:+.1f}, {first['ci_high']:+.1f}]"
    assert said[4].startswith(f"DIET-CP: {numbers.replace('-', '−')} on your 200 test images, 1 minute of training")
    assert [line.split(":")[0] for line in said] == ["DINO (control)"] * 4 + ["DIET-CP"] * 4
    assert "% in depth RMSE" in said[3]
    for key, line in zip(((m, name) for m in ("dino", "diet_cp") for name in HEADLINE), said, strict=True):
        row = rows[key]
        told = row["ci_low"] > 0 or row["ci_high"] < 0
        assert ("not told from chance" in line) != told
        assert told or f"a true gain of {row['mde']:.1f} " in line


def test_one_run_on_own_images_says_that_another_seed_may_differ(own: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(own, tmp_path / "study"))
    one_seed(folder)
    said = answer_of(StudyFiles(folder)).sentences
    sure = [line for line in said if "not told" not in line]
    assert sure
    assert all(line.endswith("; beyond chance for this run, and another seed may differ.") for line in sure)
    assert all("so more test images." in line for line in said if line not in sure)
    shutil.rmtree(folder / "outcomes")
    said = answer_of(StudyFiles(folder)).sentences
    assert all("on your test images" in line and line.endswith("so chance cannot be told.") for line in said)


def test_images_without_labels_are_answered_by_the_geometry_of_their_features(own: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(own, tmp_path / "study"))
    (folder / "scores.csv").unlink()
    place = {"backbone": "vits14_imgfocus", "domain": "tabletop", "images": 60, "width": 384}
    base = place | {"method": "base", "n": 0, "uniformity": -1.2, "effective_rank": 41.2}
    trained = place | {"method": "diet_cp", "n": 100, "uniformity": -2.0, "effective_rank": 55.7}
    pd.DataFrame([base, trained]).to_csv(folder / "geometry.csv", index=False)
    first, *rest = answer_of(StudyFiles(folder)).sentences
    assert first.startswith(
        "DIET-CP: effective rank of the features from 41 to 56 of 384, uniformity from −1.20 to −2.00 (lower is more "
        "even), on 60 of your images, 1 minute of training; by its own log it "
    )
    assert tuple(rest) == UNSCORED.sentences


def test_the_best_method_is_the_one_whose_interval_ends_highest_at_its_lower_end() -> None:
    wide = gain("tec", "neu_steel", "knn_accuracy", 15.0, 2.0, 28.0)
    assert say(wide, STEEL)[0].startswith("100 images of NEU steel: DIET-CP, +13.9")
    assert say(wide, STEEL)[1] == "Nothing else gained beyond chance."
    assert say(wide, STEEL)[2] == "Every domain and measure gained from some method."


def test_the_surest_gain_comes_before_a_larger_one() -> None:
    large = gain("tec", "cifar10", "knn_accuracy", 20.0, 1.0, 39.0)
    first, second, _ = say(large, SCENES)
    assert first.startswith("100 images of Tabletop: GLARE, +1.0")
    assert second.startswith("Also: 100 images of CIFAR-10: TEC, +20.0")


def test_one_method_on_one_domain_is_named_once_with_what_it_costs() -> None:
    linear = gain("diet_cp", "neu_steel", "linear_accuracy", 2.0, 1.0, 3.0)
    depth = gain("diet_cp", "neu_steel", "rmse", -3.0, -5.0, -1.0)
    first, second, third = say(STEEL, linear, depth, spent={("b", "neu_steel", "diet_cp", 100): "2 hours of training"})
    assert first == (
        "100 images of NEU steel: DIET-CP, 2 hours of training, +13.9 points of kNN accuracy [+12.1, +15.8] and "
        "+2.0 points of linear accuracy [+1.0, +3.0], but −3.0 % in depth RMSE [−5.0, −1.0]."
    )
    assert second == "Nothing else gained beyond chance."
    assert third == "No method helps beyond chance on NEU steel (depth RMSE)."


@pytest.mark.parametrize("low", [0.0, -0.01])
def test_an_interval_that_touches_zero_helps_nobody(low: float) -> None:
    first, second, third = say(gain("diet_cp", "neu_steel", "knn_accuracy", 5.0, low, 10.0))
    assert first == "No method helps beyond chance on NEU steel."
    assert second.startswith("Largest, but not told from chance: 100 images of NEU steel: DIET-CP, +5.0 points")
    assert third == "None harms beyond chance either."
    assert say(gain("mae", "neu_steel", "knn_accuracy", -5.0, -10.0, -low))[2] == third


def test_one_seed_is_never_told_from_chance() -> None:
    row = gain("diet_cp", "tabletop", "knn_accuracy", 9.0, 4.0, 14.0, covers="test images", seeds=1)
    loss = gain("tec", "tabletop", "miou", -1.4, -3.0, -0.2, covers="test images", seeds=1)
    first, second, third = say(row, loss)
    assert first == (
        "One seed, largest gain: 100 images of Tabletop: DIET-CP, +9.0 points of kNN accuracy [+4.0, +14.0] (interval "
        "over test images only)."
    )
    assert second.startswith("No method helps beyond chance: with one seed none could")
    assert third == "Largest loss: TEC on Tabletop, −1.4 points of segmentation mIoU [−3.0, −0.2]."
    bare = gain("diet_cp", "tabletop", "knn_accuracy", 9.0, math.nan, math.nan, covers="", seeds=1)
    assert say(bare)[0].endswith("+9.0 points of kNN accuracy.")
    assert say(bare)[2] == "No mean gain is below zero."


def test_a_method_that_did_not_act_is_never_named_as_help() -> None:
    first, _, third = say(STEEL, NOTHING, idle={("b", "neu_steel", "diet_cp", 100)})
    assert first.startswith("No method that acted helps beyond chance")
    assert third == "None harms beyond chance either."
    gains = pd.DataFrame([STEEL, NOTHING]).assign(p_holm=[0.01, 0.5])
    scores = pd.DataFrame([{"backbone": "b", "domain": "neu_steel", "method": "diet_cp", "n": 100, "seed": 0}])
    said = how_sure(gains, scores, {("b", "neu_steel", "diet_cp", 100)})
    assert "Of 2 gains 1 have" in said
    assert "1 of the 1, and 1 of the 1, are of methods that did not act." in said
    assert "did not act" not in how_sure(gains, scores)


def test_how_sure_counts_gains_chance_and_what_would_have_been_found() -> None:
    rows = [STEEL, SCENES, HARM, *(NOTHING | {"domain": f"d{i}"} for i in range(17))]
    gains = pd.DataFrame(rows).assign(p_holm=[0.01, 0.049, 0.05] + [1.0] * 17, mde=[2.0] * 11 + [9.0] * 9)
    scores = pd.DataFrame([{"backbone": "b", "domain": "d", "method": "mae", "n": 100, "seed": s} for s in range(3)])
    said = how_sure(gains, scores)
    assert said.startswith("3 seeds per domain, method and n;")
    assert "Of 20 gains 3 have an interval that leaves out zero (chance alone: about 1), 2 stay significant" in said
    assert said.endswith(" Half of the comparisons would find a true gain of 2.0 points or % (80 % power).")


def test_losses_only() -> None:
    first, second, third = say(HARM)
    assert first == "No method helps beyond chance on NEU steel."
    assert second == "No mean gain is above zero."
    assert third.startswith("Harmful beyond chance: MAE (control) on NEU steel")


def test_a_long_list_is_counted() -> None:
    rows = [gain("diet_cp", f"d{i}", "knn_accuracy", 5.0 + i, 4.0 + i, 6.0 + i) for i in range(8)]
    second = say(*rows)[1]
    assert second.count("images of") == 4
    assert second.endswith("; and 3 more.")


def test_several_backbones_are_named() -> None:
    other = {**STEEL, "backbone": "c"}
    assert "NEU steel (b)" in " ".join(say(STEEL, other))


def test_durations() -> None:
    found = [time_words(seconds) for seconds in (0.2, 1, 58, 431, 3600, 9000, 86_400)]
    assert found == ["less than a second", "1 second", "1 minute", "7 minutes", "1 hour", "2.5 hours", "24 hours"]


def test_the_answer_of_a_study(small: Path, tmp_path: Path) -> None:
    answer = answer_of(StudyFiles(small))
    assert len(answer.sentences) == 3
    assert answer.how_sure.startswith("2 seeds per domain, method and n;")
    assert "Intervals cover seeds and test images." in answer.how_sure
    assert "stay significant after Holm's correction" in answer.how_sure
    assert answer.not_known == "Nothing here covers the choice of domains: it holds for these domains."
    folder = Path(shutil.copytree(small, tmp_path / "study"))
    curves = pd.read_csv(folder / "curves.csv")
    curves.loc[curves["method"].eq("diet_cp"), "loss"] = np.log(1000)
    curves.to_csv(folder / "curves.csv", index=False)
    (folder / "not_run.json").write_text('{"nyuv2": "no folder"}')
    known = answer_of(StudyFiles(folder)).not_known
    assert known.startswith("DIET-CP on Tabletop: did not act by its own log")
    assert "Not run: NYUv2 (no folder)." in known


def test_studies_with_little_to_say(tmp_path: Path) -> None:
    assert answer_of(StudyFiles(tmp_path)) == UNSCORED
    table = synthetic_study.scores(domains=("camvid",), methods=("glare",), seeds=1)
    table[table["n"].isin([0, 100])].to_csv(tmp_path / "scores.csv", index=False)
    answer = answer_of(StudyFiles(tmp_path))
    assert answer.how_sure.endswith("No gain can be told from chance with one seed.")
    assert "each domain has one n" in answer.not_known
    table[table["n"].eq(0)].to_csv(tmp_path / "scores.csv", index=False)
    assert answer_of(StudyFiles(tmp_path)).sentences[0].startswith("Nothing was trained in this study")


def test_a_cells_time_names_what_it_was_spent_on(small: Path, tmp_path: Path) -> None:
    assert not StudyFiles(small).devices
    cost = pd.read_csv(small / "cost.csv").assign(train_seconds=431.0)  # of a study without labels
    cells = set(cost.loc[cost["images_seen"] > 0, CELL].itertuples(index=False, name=None))
    for device, threads, expected in (
        ("cpu", 1, "7 minutes on one CPU core (wall time)"),
        ("cpu", 2, "7 minutes on 2 CPU cores (wall time)"),
        ("H100", 4, "7 minutes on one H100 (wall time)"),
    ):
        cost.assign(device=device, threads=threads).to_csv(tmp_path / "cost.csv", index=False)
        assert StudyFiles(tmp_path).spent == dict.fromkeys(cells, expected)
    other = cost["method"].eq("dino") & cost["n"].eq(100)
    cost.assign(device=other.map({True: "H100", False: "cpu"}), threads=1).to_csv(tmp_path / "cost.csv", index=False)
    for (*_, method, n), words in StudyFiles(tmp_path).spent.items():
        assert ("one H100" in words) == ((method, n) == ("dino", 100))
    mixed = cost["seed"].eq(0).map({True: "H100", False: "cpu"})
    cost.assign(device=mixed, threads=1).to_csv(tmp_path / "cost.csv", index=False)
    assert set(StudyFiles(tmp_path).spent.values()) == {"7 minutes of training"}


def test_files_are_read_again_once_one_has_changed(small: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small, tmp_path / "study"))
    first = study_files(folder)
    assert study_files(folder) is first
    table = pd.read_csv(folder / "cost.csv")
    table.assign(train_seconds=431.0).to_csv(folder / "cost.csv", index=False)
    again = study_files(folder)
    assert again is not first
    assert set(again.cost["train_seconds"]) == {431.0}
