from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from lowdata_cpt.analysis.summary import cell_statistics
from lowdata_cpt.analysis.table import (
    COST_COLUMNS,
    at_end,
    paired_gain,
    read_curves,
    read_scores,
    read_table,
)
from lowdata_cpt.core.errors import UserError


def write(tmp_path: Path, frame: pd.DataFrame) -> Path:
    path = tmp_path / "scores.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def rows(scores: pd.DataFrame) -> pd.DataFrame:
    picked = scores["domain"].eq("tabletop") & scores["method"].isin(["base", "diet_cp", "dino"])
    return scores[picked & scores["seed"].lt(2)].reset_index(drop=True)


def test_reads_what_was_written(tmp_path: Path, rows: pd.DataFrame) -> None:
    found = read_scores(write(tmp_path, rows))
    assert len(found) == len(rows)
    assert found["n"].dtype.kind == "i"
    assert found["value"].sum() == pytest.approx(rows["value"].sum())
    cell = found[found["method"].eq("dino") & found["n"].eq(100) & found["seed"].eq(1) & found["metric"].eq("miou")]
    assert list(cell.loc[cell["split"].eq("test"), "images_seen"]) == [1_600, 4_800, 12_800]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="seed"), "missing seed"),
        (lambda t: t.assign(extra=1), "unexpected extra"),
        (lambda t: t[t.columns[::-1]], "wrong order"),
        (lambda t: t.iloc[:0], "no rows"),
        (lambda t: pd.concat([t, t.iloc[[3]]]), "duplicate key"),
        (lambda t: t.replace({"metric": {"miou": "iou"}}), "unknown metric"),
        (lambda t: t.replace({"task": {"depth": "segmentation"}}), "task does not report"),
        (lambda t: t.replace({"split": {"test": "train"}}), "split must be"),
        (lambda t: t.assign(value=[float("nan"), *t["value"][1:]]), "line 2: value must be a finite number"),
        (lambda t: t.assign(value=[float("inf"), *t["value"][1:]]), "finite"),
        (lambda t: t.assign(value=["good", *t["value"][1:]]), "finite"),
        (lambda t: t.assign(value=[41.2, *t["value"][1:]]), r"\[0, 1\]"),
        (lambda t: t.assign(n=t["n"] + 0.5), "whole number"),
        (lambda t: t.assign(n=100), "untrained row must have n = 0"),
        (lambda t: t.assign(n=0, images_seen=0), "trained method must have n > 0"),
        (lambda t: t.assign(images_seen=0), "duplicate key"),
        (lambda t: t.assign(domain=""), "domain is empty"),
    ],
)
def test_wrong_tables_are_one_clear_error(tmp_path: Path, rows: pd.DataFrame, change, message: str) -> None:
    path = write(tmp_path, change(rows))
    with pytest.raises(UserError, match=message) as caught:
        read_scores(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_scores(tmp_path / "none.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="not a CSV"):
        read_scores(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text("backbone,domain\na,b\n")
    with pytest.raises(UserError, match="missing column method"):
        read_table(tmp_path / "c.csv", COST_COLUMNS)


def test_curves_keep_what_is_not_finite_and_leave_out_what_a_run_does_not_have(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    head = "backbone,domain,method,n,seed,step,images_seen,loss,value\n"
    path.write_text(head + "b,camvid,dino,4,0,0,32,nan,\nb,camvid,v_pretraining,4,0,0,32,inf,0.5\n")
    rows = read_curves(path)
    assert list(rows.columns) == ["backbone", "domain", "method", "n", "seed", "step", "images_seen", "part", "value"]
    found = [(row.method, row.part, str(row.value)) for row in rows.itertuples()]
    assert found == [("dino", "loss", "nan"), ("v_pretraining", "loss", "inf"), ("v_pretraining", "value", "0.5")]
    path.write_text(head)
    assert read_curves(path).empty
    path.write_text(head + "b,camvid,dino,4,0,0,32,1.0,\nb,camvid,dino,4,0,1,64,one,\n")
    with pytest.raises(UserError, match="line 3: loss is not a number"):
        read_curves(path)


def values(test: pd.DataFrame) -> pd.Series:
    return test.set_index(["method", "n", "seed", "metric", "images_seen"])["value"]


def test_ends(rows: pd.DataFrame) -> None:
    ends = at_end(rows)
    assert set(ends.loc[ends["n"] > 0, "images_seen"]) == {12_800}
    assert len(ends[ends["n"] == 0]) == len(rows[rows["n"] == 0])


def test_gains_are_oriented_and_paired_at_the_end(rows: pd.DataFrame) -> None:
    test = rows[rows["split"].eq("test")]
    gains = paired_gain(test, "base", complete=True).set_index(["method", "n", "seed", "metric"])
    plain = values(test)
    for metric, sign in (("miou", 1), ("rmse", -1)):
        expected = sign * (plain["diet_cp", 500, 1, metric, 12_800] - plain["base", 0, 1, metric, 0])
        assert gains.loc[("diet_cp", 500, 1, metric), "gain"] == pytest.approx(expected)
    row = gains.loc[("diet_cp", 500, 1, "rmse")]
    assert row["shown_gain"] == pytest.approx(100 * row["gain"] / row["reference_value"])
    assert gains.loc[("diet_cp", 500, 1, "miou"), "shown_gain"] == pytest.approx(
        100 * gains.loc[("diet_cp", 500, 1, "miou"), "gain"]
    )


def test_gain_over_a_control_is_at_the_same_n(rows: pd.DataFrame) -> None:
    test = rows[rows["split"].eq("test")]
    gains = paired_gain(test[~(test["method"].eq("dino") & test["n"].eq(250))], "dino")
    assert set(gains["n"]) == {100, 500, 1000}
    assert set(gains["method"]) == {"diet_cp"}


def test_gain_over_a_control_is_at_the_largest_common_milestone(rows: pd.DataFrame) -> None:
    test = rows[rows["split"].eq("test")]
    short = test[~(test["method"].eq("dino") & test["images_seen"].eq(12_800))]  # the control stops at 4,800
    gains = paired_gain(short, "dino").set_index(["n", "seed", "metric"])
    plain = values(test)
    row = gains.loc[(500, 1, "miou")]
    assert (row["images_seen"], row["reference_images_seen"]) == (4_800, 4_800)
    assert row["gain"] == pytest.approx(plain["diet_cp", 500, 1, "miou", 4_800] - plain["dino", 500, 1, "miou", 4_800])
    every = paired_gain(short, "dino", milestones=True)
    assert set(every["images_seen"]) == {1_600, 4_800}
    apart = short.assign(images_seen=short["images_seen"].where(short["method"] != "dino", short["images_seen"] * 2))
    assert paired_gain(apart, "dino").empty


@pytest.mark.parametrize(("apart", "last", "of"), [(256, 12_800, 12_544), (257, 4_800, 4_800)])
def test_milestones_that_differ_by_two_percent_are_the_same(rows: pd.DataFrame, apart: int, last: int, of: int) -> None:
    test = rows[rows["split"].eq("test")]
    end = test["method"].eq("dino") & test["images_seen"].eq(12_800)
    gains = paired_gain(test.assign(images_seen=test["images_seen"] - apart * end), "dino")
    assert set(zip(gains["images_seen"], gains["reference_images_seen"], strict=True)) == {(last, of)}


def test_a_missing_base_is_an_error(rows: pd.DataFrame) -> None:
    broken = rows[~(rows["method"].eq("base") & rows["seed"].eq(1) & rows["metric"].eq("miou"))]
    with pytest.raises(UserError, match=re.escape("diet_cp on tabletop, miou, seed 1 has no base row")):
        paired_gain(broken, "base", complete=True)


def test_a_bank_of_the_drawn_images_has_no_base_to_be_paired_with(rows: pd.DataFrame) -> None:
    bank = rows[rows["metric"].eq("miou") & rows["n"].gt(0)].assign(task="linear", metric="bank_knn_accuracy")
    cells = cell_statistics(pd.concat([rows, bank], ignore_index=True))
    banked = cells["metric"].eq("bank_knn_accuracy")
    assert banked.any()
    assert cells.loc[banked, "mean"].notna().all()
    assert cells.loc[banked, "gain"].isna().all()
    assert cells.loc[~banked & cells["n"].gt(0), "gain"].notna().all()


def test_what_needs_the_drawn_images_is_paired_with_the_start_of_the_same_run() -> None:
    def row(method: str, n: int, images: int, metric: str, value: float) -> dict[str, object]:
        named = {"study": "s", "backbone": "b", "domain": "d", "method": method, "n": n, "seed": 0, "task": "linear"}
        return named | {"metric": metric, "split": "test", "value": value, "images_seen": images, "train_seconds": 0.0}

    scores = pd.DataFrame(
        [
            row("base", 0, 0, "knn_accuracy", 0.2),
            row("base_domain_norm", 0, 0, "knn_accuracy", 0.3),
            *(row("diet_cp", 100, images, "knn_accuracy", value) for images, value in ((0, 0.31), (8, 0.5))),
            *(
                row("diet_cp", 100, images, "bank_knn_accuracy", value)
                for images, value in ((0, 0.1), (4, 0.2), (8, 0.4))
            ),
        ]
    )
    found = paired_gain(scores, "base_domain_norm").set_index("metric")
    assert found.loc["knn_accuracy", ["reference_value", "reference"]].tolist() == [0.3, "base_domain_norm"]
    own = found.loc["bank_knn_accuracy"]
    assert own[["reference", "reference_n", "reference_images_seen"]].tolist() == ["diet_cp", 100, 0]
    assert own["shown_gain"] == pytest.approx(30.0)
    # DIET-CP starts under the domain's normalisation: its run has no start that would be the released base.
    assert paired_gain(scores, "base", complete=True)["metric"].tolist() == ["knn_accuracy"]
