"""Publishing gathers a run's small files into three, and leaves what it cannot gather as it was published."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import write_text
from lowdata_cpt.core.paths import REPOSITORY as ROOT
from lowdata_cpt.core.provenance import write_sidecar
from lowdata_cpt.reproduce.publish import LAYOUTS, gather_benchmarks, gather_subsets, publish

SCORES = "study,backbone,domain,method,n,seed\nquick,tiny,camvid,base,0,0\nquick,tiny,camvid,mae,4,1\n"
TIMES = "s\tmax_rss\n{}\t20.5\n"
IMAGES = [f"{row},image-{row},{row:064x}" for row in (7, 3, 9, 1)]


def draw(folder: Path, n: int, images: list[str], seed: int = 1) -> None:
    write_text(folder / f"subsets/camvid/s{seed}/n{n}.csv", "\n".join(["row,id,sha256", *images[:n], ""]))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = Path("results/quick")
    write_text(folder / "scores.csv", SCORES)
    write_sidecar(folder / "scores.csv")
    for name, seconds in (
        ("pretrain/tiny/camvid/mae/n4/s1", 3.25),
        ("data/camvid", 1),
        ("subset/camvid/s1/n4", 2),
        ("backbone/tiny", 4),
    ):
        write_text(folder / f"benchmarks/{name}.tsv", TIMES.format(seconds))
    draw(folder, 2, IMAGES)
    draw(folder, 4, IMAGES)
    return folder


def test_three_files_are_written(folder: Path) -> None:
    assert [path.name for path in publish("quick")] == ["provenance.json", "benchmarks.csv", "subsets.csv"]


def test_the_rules_are_those_that_the_workflow_measures() -> None:
    rules = (ROOT / "workflow/rules").glob("*.smk")
    measured = {name for path in rules for name in re.findall(r'PATHS\.benchmark\("(\w+)"', path.read_text())}
    assert set(LAYOUTS) == measured


def test_benchmarks_say_which_job(folder: Path) -> None:
    assert gather_benchmarks(folder).to_csv(index=False).splitlines() == [
        "rule,job,backbone,domain,method,n,seed,s,max_rss",
        "backbone,tiny,tiny,,,,,4,20.5",
        "data,camvid,,camvid,,,,1,20.5",
        "pretrain,tiny/camvid/mae/n4/s1,tiny,camvid,mae,4,1,3.25,20.5",
        "subset,camvid/s1/n4,,camvid,,4,1,2,20.5",
    ]


def test_a_partial_run_replaces_its_own_rows(folder: Path) -> None:
    publish("quick")
    shutil.rmtree(folder / "benchmarks")
    write_text(folder / "benchmarks/data/camvid.tsv", TIMES.format(100))
    publish("quick")
    table = pd.read_csv(folder / "benchmarks.csv").set_index("rule")["s"]
    assert table["data"] == 100
    assert table["pretrain"] == 3.25
    # A published row of a rule that the workflow no longer has goes; a row of a job that ran here stays.
    with (folder / "benchmarks.csv").open("a") as file:
        file.write("features,tiny/camvid/mae/n4/s1,tiny,camvid,mae,4,1,7,20.5\n")
    assert "features" not in set(gather_benchmarks(folder)["rule"])
    write_text(folder / "scores.csv", SCORES.replace("mae", "tec"))  # mae has left the study
    assert "pretrain" not in set(gather_benchmarks(folder)["rule"])


def test_a_language_study_is_published_again(tmp_path: Path) -> None:
    write_text(tmp_path / "scores.csv", "study,learner,arm,seed\nlanguage,bytes_1m,base,0\n")
    write_text(tmp_path / "benchmarks/continue/bytes_1m/next_token/s0.tsv", TIMES.format(3))
    first = gather_benchmarks(tmp_path)
    write_text(tmp_path / "benchmarks.csv", first.to_csv(index=False))
    shutil.rmtree(tmp_path / "benchmarks")
    assert gather_benchmarks(tmp_path).equals(first)


def test_a_damaged_benchmark_is_named(folder: Path) -> None:
    write_text(folder / "benchmarks/data/camvid.tsv", "")
    with pytest.raises(UserError, match=r"data/camvid\.tsv: not a benchmark"):
        publish("quick")


@pytest.mark.parametrize(
    ("name", "content"), [("benchmarks.csv", ""), ("benchmarks.csv", "a\n1\n"), ("scores.csv", "")]
)
def test_a_damaged_table_is_named(folder: Path, name: str, content: str) -> None:
    publish("quick")
    write_text(folder / name, content)
    with pytest.raises(UserError, match=rf"{name}: (not a CSV table|missing column rule)"):
        gather_benchmarks(folder)


def test_images_stand_once_in_drawn_order(folder: Path) -> None:
    table = gather_subsets(folder)
    assert table.columns.tolist() == ["domain", "seed", "place", "id", "sha256"]
    assert table["place"].tolist() == [1, 2, 3, 4]
    assert table["id"].tolist() == ["image-7", "image-3", "image-9", "image-1"]
    assert set(table["sha256"].str.len()) == {16}


def test_subsets_that_are_not_nested_are_refused(folder: Path) -> None:
    draw(folder, 2, IMAGES[1:])
    with pytest.raises(UserError, match=r"n2\.csv: not the beginning"):
        publish("quick")


def test_without_a_run_what_is_published_stays(folder: Path) -> None:
    before = {path: path.read_bytes() for path in publish("quick")}
    for name in ("benchmarks", "subsets"):
        shutil.rmtree(folder / name)
    (folder / "scores.csv.prov.json").unlink()
    assert {path: path.read_bytes() for path in publish("quick")} == before


def test_a_study_that_has_not_run_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="published when it has run"):
        publish("paper")
