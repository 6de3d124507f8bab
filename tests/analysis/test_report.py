from __future__ import annotations

import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from lowdata_cpt.analysis import commands
from lowdata_cpt.analysis.answer import answer_of
from lowdata_cpt.analysis.figures import StudyFacts, draw, figure_names
from lowdata_cpt.analysis.report import build_report
from lowdata_cpt.analysis.report.images import thumbnails
from lowdata_cpt.analysis.study_files import StudyFiles
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import sha256_file, write_json
from lowdata_cpt.jobs import report as present

VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Collects ids, links and outside resources, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.ids += [known["id"]] if known.get("id") else []
        if tag in ("a", "link"):
            self.links.append(known["href"] or "")
        if known.get("src"):
            self.sources.append(known["src"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def full(small: Path, claims_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_study(small, claims_file, tmp_path_factory.mktemp("report") / "study")


def full_study(small: Path, claims_file: Path, folder: Path) -> Path:
    """A study with everything that a report can show."""
    shutil.copytree(small, folder)
    commands.make_claims(folder, claims_file, folder, "embedded")
    facts = StudyFacts({("vits14_imgfocus", "tabletop"): ("segmentation", "depth")})
    for name in figure_names(facts):
        draw(name, folder, folder / "figures")
    write_json(folder / "not_run.json", {"nyuv2": "no folder <here>"})
    record = {"artifact": {"sha256": "0123456789abcdef"}, "inputs": [], "note": "<b>&"}
    write_json(folder / "scores.csv.prov.json", record | {"artifact": {"sha256": sha256_file(folder / "scores.csv")}})
    cell = folder / "cells" / "vits14_imgfocus" / "tabletop" / "diet_cp" / "n100" / "s1"
    write_json(cell / "cost.json.prov.json", record)
    build_report(folder, folder / "report.html")
    return folder


def test_a_figure_that_the_study_no_longer_has_is_left_out(full: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(full, folder)
    shutil.copy(folder / "figures/gains.png", folder / "figures/loss-old-tabletop.png")
    build_report(folder, folder / "report.html", ["gains", "learning"])
    text = (folder / "report.html").read_text()
    assert "figures/gains.png" in text
    assert "loss-old-tabletop" not in text


def test_report_needs_no_network_and_its_links_lead_somewhere(full: Path) -> None:
    text = (full / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        inside = link.startswith("#") and link.removeprefix("#") in page.ids
        assert inside or link == "data:," or (full / link).is_file(), link
    assert any(link == "figures/learning.png" for link in page.links)
    assert len(page.sources) == len(list((full / "figures").glob("*.png")))
    assert all(source.startswith("data:image/webp;base64,") for source in page.sources)
    assert not re.search(r"https?://", re.sub(r"base64,[^\"]+", "", text))


def test_report_begins_with_three_sentences_and_one_picture(full: Path) -> None:
    text = (full / "report.html").read_text()
    answer = text[text.index('<section id="answer">') : text.index("</section>")]
    said = answer_of(StudyFiles(full)).sentences
    assert re.findall(r"<li>(.*?)</li>", answer) == [html.escape(sentence, quote=False) for sentence in said]
    assert answer.count("<img") == 1
    order = [text.index(f'id="{name}"') for name in ("answer", "sure", "domains", "claims", "figures", "provenance")]
    assert order == sorted(order)
    assert text.count("<table") == text.count('<div class="wide"><table')


def test_a_number_leads_to_its_cell_and_all_text_is_escaped(full: Path) -> None:
    text = (full / "report.html").read_text()
    cell = "cell-vits14_imgfocus-tabletop-diet_cp-100"
    assert text.count(f'href="#{cell}"') >= 4
    row = text[text.index(f'id="{cell}"') :].split("</tr>")[0]
    assert "seed 1: cost.json 01234567<" in row
    assert "no folder &lt;here&gt;" in text
    assert "&lt;b&gt;&amp;" in text
    assert "<b>" not in text


def test_equal_files_give_an_equal_page_below_two_mebibytes(full: Path, tmp_path: Path) -> None:
    build_report(full, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == (full / "report.html").read_bytes()
    assert (tmp_path / "again.html").stat().st_size < 2 * 2**20


def test_thumbnails_stay_within_their_budget(full: Path) -> None:
    paths = sorted((full / "figures").glob("*.png"))
    every = thumbnails(paths, wide=2)
    assert list(every) == paths
    sizes = [len(one.source) for one in every.values()]
    few = thumbnails(paths, wide=2, budget=sum(sizes[:3]))
    assert list(few) == paths[:3]
    assert max(one.width for one in list(every.values())[2:]) <= 560


def test_a_damaged_sidecar_is_named(full: Path, tmp_path: Path) -> None:
    shutil.copy(full / "scores.csv", tmp_path)
    write_json(tmp_path / "cells/b/camvid/tec/n4/s0/linear.json.prov.json", {"seed": 1})
    with pytest.raises(UserError, match=r"s0/linear.json.prov.json: not a sidecar"):
        build_report(tmp_path, tmp_path / "report.html")


def test_report_copes_without_optional_parts(full: Path, tmp_path: Path) -> None:
    build_report(tmp_path, tmp_path / "report.html")
    assert "No domain of this study has labels" in (tmp_path / "report.html").read_text()
    scores = pd.read_csv(full / "scores.csv")
    scores[scores["seed"].eq(0)].to_csv(tmp_path / "scores.csv", index=False)
    build_report(tmp_path, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "No figure has been drawn" in text
    assert "No gain can be told from chance with one seed." in text
    assert 'id="claims"' not in text
    scores[scores["n"].eq(0)].to_csv(tmp_path / "scores.csv", index=False)
    build_report(tmp_path, tmp_path / "report.html")
    assert "Nothing was trained in this study" in (tmp_path / "report.html").read_text()


def test_headline_prints_the_answer(full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    present.headline(full)
    printed = capsys.readouterr().out
    assert printed.splitlines()[:3] == list(answer_of(StudyFiles(full)).sentences)
    assert "knn_accuracy" in printed
    (tmp_path / "study.json").write_text("{}")
    present.headline(tmp_path)
    assert "nothing was scored" in capsys.readouterr().out


def test_ledger_counts_the_studys_own_submissions(full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("results/embedded")
    shutil.copytree(full, folder)
    (folder / "report.html").unlink()
    line = {"run": "r", "rule": "pretrain", "wildcards": {"method": "glare"}, "elapsed": 1800.0, "gpus": 2, "cpus": 4}
    starts = [("a", "results/embedded/x", "requeued", 1), ("a", "results/embedded/x", "finished", 2)]
    starts += [("b", "results/embedded/y", "failed", 1), ("c", "results/quick/x", "finished", 1)]
    lines = [
        line | {"submission": uid, "outputs": [out], "state": state, "attempts": attempt}
        for uid, out, state, attempt in starts
    ]
    present.SUBMITTED.mkdir(parents=True)
    (present.SUBMITTED / "r.jsonl").write_text("\n".join(json.dumps(one) for one in lines))
    present.report(folder)
    (row,) = pd.read_csv(folder / "ledger.csv").to_dict("records")
    assert (row["rule"], row["method"], row["starts"], row["gpu_hours"]) == ("pretrain", "glare", 3, 3.0)
    assert row["failed_gpu_hours"] + row["requeued_gpu_hours"] == 2.0
    assert "Ledger of the cluster" in (folder / "report.html").read_text()
