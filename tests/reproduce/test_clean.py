"""What git holds of results: few files, none that a run changes; the rest is ignored."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CELL = "cells/vits14_imgfocus/tabletop/mae/n100/s0"


def git(*arguments: str, given: str = "") -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, input=given, capture_output=True, text=True, check=False)
    if done.returncode > 1 or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    return done.stdout


def test_few_files_are_tracked() -> None:
    assert len(git("ls-files", "results").splitlines()) < 350


def test_nothing_tracked_is_ignored() -> None:
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == ""


@pytest.mark.parametrize(
    "name",
    [
        f"{CELL}/evaluation.json",
        f"{CELL}/outcomes.npz",
        "data/tabletop/manifest.json",
        "backbones/vits14_imgfocus/model.safetensors",
        "qualitative/vits14_imgfocus-tabletop.npz",
        "subsets/tabletop/s0/n100.csv",
        f"benchmarks/pretrain/{CELL.removeprefix('cells/')}.tsv",
        "logs/study.log",
        "ledger.csv",
        "report.html",
        "figures/gain_by_n.pdf",
        "figures/gain_by_n.png.prov.json",
        "tables/scores-vits14_imgfocus-tabletop.tex",
        "scores.csv.prov.json",
    ],
)
def test_what_a_run_makes_anew_is_ignored(name: str) -> None:
    assert git("check-ignore", "--stdin", given=f"results/quick/{name}\n")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "scores.csv",
            "cost.csv",
            "curves.csv",
            "selected.csv",
            "trivial_baselines.csv",
            "study.json",
            "not_run.json",
        ),
        *("claims.json", "claims.md", "statistics/summary.csv", "statistics/metrics.json"),
        *("figures/gain_by_n.png", "figures/gain_by_n.csv", "figures/gain_by_n.md"),
        *("tables/headline.csv", "tables/answer.md", "provenance.json", "benchmarks.csv", "subsets.csv"),
    ],
)
def test_what_a_reader_needs_is_not_ignored(name: str) -> None:
    assert not git("check-ignore", "--no-index", "--stdin", given=f"results/quick/{name}\n")


def test_generated_files_are_marked() -> None:
    names = ["results/quick/scores.csv", "uv.lock", "requirements.txt", "config/schema.json", "docs/deviations.md"]
    marked = git("check-attr", "linguist-generated", "--", *names, "README.md").splitlines()
    assert [line.rsplit(": ", 1)[1] for line in marked] == ["set"] * len(names) + ["unspecified"]
