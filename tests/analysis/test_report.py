from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from lowdata_cpt.analysis import commands
from lowdata_cpt.analysis.report import build_report
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import write_json
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
    folder = tmp_path_factory.mktemp("report") / "study"
    shutil.copytree(small, folder)
    shutil.rmtree(folder / "qualitative")
    (folder / "curves.csv").unlink()
    commands.make_claims(folder / "scores.csv", claims_file, folder, "embedded")
    if not (folder / "figures").exists():
        commands.make_figures(folder, folder / "figures")
    write_json(folder / "scores.csv.prov.json", {"code": {"commit": "abc"}, "note": "<b>&"})
    cell = folder / "cells" / "vits14_imgfocus" / "tabletop" / "diet_cp" / "n100" / "s1"
    write_json(cell / "model.safetensors.prov.json", {"artifact": {"sha256": "0123456789abcdef"}})
    build_report(folder, folder / "report.html")
    return folder


def test_report_is_self_contained_and_its_links_lead_somewhere(full: Path) -> None:
    text = (full / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert link == "data:," or link.removeprefix("#") in page.ids, link
    assert page.sources
    assert all(source.startswith("data:image/webp;base64,") for source in page.sources)
    assert not re.search(r"https?://", re.sub(r"base64,[^\"]+", "", text))


def test_report_answers_first_and_leads_from_a_number_to_its_sidecar(full: Path) -> None:
    text = (full / "report.html").read_text()
    order = [text.index(f'id="{name}"') for name in ("answer", "claims", "figures", "scores", "compute", "provenance")]
    assert order == sorted(order)
    cell = "cell-vits14_imgfocus-tabletop-diet_cp-100"
    assert f'href="#{cell}"' in text
    row = text[text.index(f'id="{cell}"') :].split("</tr>")[0]
    assert "seed 1: model.safetensors 01234567<" in row
    assert "&lt;b&gt;&amp;" in text


def test_a_damaged_sidecar_is_named(full: Path, tmp_path: Path) -> None:
    shutil.copy(full / "scores.csv", tmp_path)
    write_json(tmp_path / "cells/b/camvid/tec/n4/s0/linear.json.prov.json", {"seed": 1})
    with pytest.raises(UserError, match=r"s0/linear.json.prov.json: not a sidecar"):
        build_report(tmp_path, tmp_path / "report.html")


def test_report_copes_without_optional_parts(full: Path, tmp_path: Path) -> None:
    scores = pd.read_csv(full / "scores.csv")
    scores.to_csv(tmp_path / "scores.csv", index=False)
    build_report(tmp_path, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "No figure has been drawn" in text
    assert 'id="claims"' not in text
    scores[scores["n"].eq(0)].to_csv(tmp_path / "scores.csv", index=False)
    build_report(tmp_path, tmp_path / "report.html")
    assert "Nothing was trained" in (tmp_path / "report.html").read_text()


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
