from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
import pytest

from lowdata_cpt.analysis import commands
from lowdata_cpt.analysis.claims import p_text
from lowdata_cpt.analysis.summary import LIMITS
from lowdata_cpt.analysis.table import at_end
from lowdata_cpt.analysis.tables import (
    IDLE,
    answer_markdown,
    domain_markdown,
    domain_table,
    headline,
    headline_markdown,
    method_table,
    write_tables,
)
from tests.analysis import synthetic_study


def table_of(text: str) -> list[list[str]]:
    """Header and rows of the one Markdown table in `text`."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [lines[0], *lines[2:]]


def test_answer_is_the_gain_of_each_domain_in_points() -> None:
    scores = synthetic_study.scores(domains=("cifar10", "nyuv2"), seeds=5, noise=0.002)
    rows = at_end(scores[scores["split"].eq("test") & scores["n"].isin([0, 100])])
    value = rows.set_index(["domain", "metric", "method", "seed"])["value"].sort_index()
    header, *lines = table_of(answer_markdown(scores))
    methods = ["DINO (control)", "MAE (control)", "DIET-CP", "GLARE", "TEC", "V-pretraining"]
    assert header == ["Domain", "n", "Metric", *methods]
    names = ["kNN accuracy (points)", "Linear accuracy (points)", "Segmentation mIoU (points)", "Depth RMSE (%)"]
    places = list(zip(["CIFAR-10"] * 2 + ["NYUv2"] * 2, ["100"] * 4, names, strict=True))
    assert [tuple(line[:3]) for line in lines] == places
    shown = lines[0][header.index("DIET-CP")]
    knn = value["cifar10", "knn_accuracy"]
    gain = 100 * (knn["diet_cp"] - knn["base"]).mean()
    assert shown.startswith(f"**+{gain:.2f} [+")
    rmse = value["nyuv2", "rmse"]
    gain = 100 * ((rmse["base"] - rmse["dino"]) / rmse["base"]).mean()
    assert lines[3][header.index("DINO (control)")].lstrip("*").startswith(f"−{-gain:.2f} [−")
    caption = answer_markdown(scores).split("\n\n")[0]
    assert "significant after Holm correction" in caption
    assert "5 seeds" in caption
    assert "DIET-CP 12,800" in caption
    assert caption.endswith(f"Intervals cover seeds. {LIMITS}")
    cells = len(rows[~rows["method"].eq("random")][["domain", "method", "n", "seed"]].drop_duplicates())
    assert f"{cells + 10} cells" in caption


def test_one_seed_without_outcomes_has_no_interval() -> None:
    once = answer_markdown(synthetic_study.scores(domains=("cifar10",), seeds=1))
    assert "One seed and no outcomes: no interval." in once
    assert "**" not in once
    assert "+" in once
    assert "[" not in once


def test_a_method_that_did_not_act_is_marked(scores: pd.DataFrame) -> None:
    place = {"backbone": "vits14_imgfocus", "domain": "camvid", "method": "tec", "n": 100}
    checks = pd.DataFrame([{**place, "acted": False}, {**place, "method": "glare", "acted": True}])
    text = answer_markdown(scores, checks=checks)
    header, *lines = table_of(text)
    marked = {(line[0], header[index]) for line in lines for index, cell in enumerate(line) if IDLE in cell}
    assert marked == {("CamVid", "TEC")}
    assert f"{IDLE}: by its own log the method did not act" in text
    assert IDLE not in answer_markdown(scores)


def test_bold_is_what_is_significant_after_correction() -> None:
    place = {"backbone": "b", "domain": "camvid", "metric": "miou", "n": 100, "mean": 1.0}
    row, text = place | {"ci_low": 0.5, "ci_high": 1.5, "p": 0.001}, "+1.00 [+0.50, +1.50]"
    p_holm = {"glare": 0.049, "tec": 0.05, "dino": math.nan}
    header, (line,) = domain_table(pd.DataFrame([row | {"method": name, "p_holm": p} for name, p in p_holm.items()]))
    assert dict(zip(header, line, strict=True)) == {
        **{"Domain": "CamVid", "n": "100", "Metric": "Segmentation mIoU (points)"},
        **{"DINO (control)": text, "GLARE": f"**{text}**", "TEC": text},
    }


def test_answer_is_empty_where_nothing_was_trained(scores: pd.DataFrame) -> None:
    assert answer_markdown(scores[scores["n"].eq(0)]) == ""
    assert domain_markdown(scores[scores["n"].eq(0)]) == ""


def test_every_gain_stands_with_what_can_be_told_from_it(scores: pd.DataFrame) -> None:
    header, *lines = table_of(domain_markdown(scores[scores["domain"].eq("camvid")]))
    rows = {tuple(line[2:5]): dict(zip(header, line, strict=True)) for line in lines}
    assert {against for _, against, _ in rows} >= {"Base (no training)", "DINO (control)", "GLARE"}
    row = rows["GLARE", "DINO (control)", "250"]
    assert (row["Images seen"], row["Seeds"], row["Interval covers"]) == ("12,800", "3", "seeds")
    assert float(row["Detectable"]) > 0
    assert row["p sign-flip"] == "0.2500"


def test_a_p_value_is_never_zero() -> None:
    assert [p_text(p) for p in (0.25, 0.00005, 1e-9, math.nan, None)] == ["0.2500", "0.0001", "< 0.0001", "–", "–"]


def test_headline_is_the_mean_at_the_end_at_the_main_n(scores: pd.DataFrame) -> None:
    table = headline(scores)
    assert list(table.columns[:6]) == ["backbone", "domain", "metric", "n", "random", "base"]
    assert "glare_no_regional" not in table.columns
    row = table[table["domain"].eq("nyuv2") & table["metric"].eq("rmse")].iloc[0]
    rows = scores[scores["domain"].eq("nyuv2") & scores["metric"].eq("rmse") & scores["split"].eq("test")]
    rows = rows[rows["images_seen"].eq(12_800)]
    assert row["n"] == 100
    assert row["tec"] == pytest.approx(rows.loc[rows["method"].eq("tec") & rows["n"].eq(100), "value"].mean())
    line = next(line for line in headline_markdown(scores).splitlines() if "NYUv2 | Depth" in line)
    best = min(row[name] for name in table.columns[4:])
    assert re.findall(r"\*\*([^*]+)\*\*", line) == [f"{best:.3f}"]
    # The best of those that acted, where the best did not.
    *_, second, first = sorted(table.columns[4:], key=lambda name: -row[name])
    checks = pd.DataFrame([{"backbone": row["backbone"], "domain": "nyuv2", "method": first, "n": 100, "acted": False}])
    line = next(line for line in headline_markdown(scores, checks).splitlines() if "NYUv2 | Depth" in line)
    assert re.findall(r"\*\*([^*]+)\*\*", line) == [f"{row[second]:.3f}"]
    assert f"| {row[first]:.3f}{IDLE} |" in line
    line = next(line for line in headline_markdown(scores).splitlines() if "NYUv2 | Segmentation" in line)
    row = table[table["domain"].eq("nyuv2") & table["metric"].eq("miou")].iloc[0]
    assert f"| {100 * row['base']:.1f} |" in line


def test_tables_are_written(small: Path, tmp_path: Path, claims_file: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    for path in (*small.glob("*.csv"), small / "outcomes"):
        (study / path.name).symlink_to(path)
    names = {
        "sentences.md",
        "answer.md",
        "domains.md",
        "stopping.md",
        "headline.md",
        "headline.csv",
        "scores-vits14_imgfocus-tabletop.md",
    }
    paths = commands.make_tables(study, tmp_path / "tables")
    assert {path.name for path in paths} == names
    assert all(path.exists() for path in paths)
    commands.make_claims(small, claims_file, study, "embedded")
    paths = commands.make_tables(study, tmp_path / "tables")
    assert {path.name for path in paths} == names | {"verdicts.md"}
    answer = (tmp_path / "tables" / "answer.md").read_text()
    assert re.match(r"Of \d+ published claims \d+ were tested here", answer)
    assert "Intervals cover seeds and test images." in answer
    plain = write_tables(pd.read_csv(small / "scores.csv"), tmp_path / "plain")
    assert "Intervals cover seeds." in plain[0].read_text()


def test_the_lowest_error_is_bold(scores: pd.DataFrame) -> None:
    header, lines, best = method_table(scores, "vits14_imgfocus", "nyuv2")
    rows = list(lines.values())
    for column, name in enumerate(header[2:], start=2):
        shown = [float(row[column].split()[0]) for row in rows]
        top = max(shown) if "↑" in name else min(shown)
        assert {i for i, _ in enumerate(rows) if (i, column) in best} == {i for i, v in enumerate(shown) if v == top}
    ends = scores[scores["split"].eq("test") & scores["domain"].eq("nyuv2") & scores["images_seen"].eq(12_800)]
    value = ends[ends["method"].eq("tec") & ends["n"].eq(250)].groupby("metric")["value"]
    (line,) = (dict(zip(header, row, strict=True)) for row in rows if row[:2] == ["TEC", "250"])
    for column, name, unit, digits in (("Depth RMSE ↓", "rmse", 1, 3), ("Segmentation mIoU ↑", "miou", 100, 1)):
        mean, sd = unit * value.mean()[name], unit * value.std()[name]
        assert line[column] == f"{mean:.{digits}f} ± {sd:.{digits}f}"
