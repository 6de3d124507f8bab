"""The whole way through, for real but tiny: Snakemake, every stage, the outputs that scripts rely on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import timm
import torch
import yaml
from PIL import Image

from tests.workflow.tiny import STUDY, environment, lowdata, merged, planned, run, snakemake, tiny_study, write_config

pytestmark = pytest.mark.slow
COLUMNS = "study,backbone,domain,method,n,seed,task,metric,split,value,images_seen,train_seconds"
CELLS = "results/quick/cells/tiny/camvid"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_study(tmp_path_factory.mktemp("study") / "p", methods={"random": {}})
    snakemake(folder)
    return folder


def test_the_table_is_tidy_and_complete(study: Path) -> None:
    path = study / "results/quick/scores.csv"
    assert path.read_text().splitlines()[0] == COLUMNS
    table = pd.read_csv(path)
    key = COLUMNS.split(",")[:9]
    assert not table.duplicated(key).any()
    assert set(zip(table["method"], table["n"], strict=True)) == {
        ("base", 0),
        ("random", 0),
        ("diet_cp", 4),
        ("mae", 4),
    }
    assert set(table["split"]) == {"val", "test"}
    assert (table.groupby(["method", "split"]).size() == 2).all()
    assert (table.loc[table["n"] == 0, "images_seen"] == 0).all()
    assert (table.loc[table["n"] > 0, "images_seen"] == 4).all()


@pytest.mark.parametrize("figure", ["answer", "learning", "loss", "segmentation"])
def test_figures_have_a_caption_and_a_source_table(study: Path, figure: str) -> None:
    found = sorted((study / "results/quick/figures").glob(f"{figure}*.png"))
    assert found
    for png in found:
        for suffix in (".csv", ".md", ".png.prov.json"):
            assert png.with_name(png.stem + suffix).stat().st_size > 0, suffix


def test_every_number_leads_to_its_inputs(study: Path) -> None:
    sidecar = json.loads((study / CELLS / "mae/n4/s0/evaluation.json.prov.json").read_text())
    assert sidecar["config"]["seed"] == 0
    assert {Path(i["path"]).name for i in sidecar["inputs"]} == {"manifest.json", "model.safetensors"}
    model = json.loads((study / CELLS / "mae/n4/s0/export/i4/model.safetensors.prov.json").read_text())
    assert any(i["path"].endswith("subsets/camvid/s0/n4.csv") for i in model["inputs"])
    assert model["environment"]["packages"]["torch"]


def test_timm_opens_the_exported_model(study: Path) -> None:
    export = study / CELLS / "mae/n4/s0/export/i4"
    name = json.loads((export / "model.json").read_text())["timm_model"]
    model = timm.create_model(name, num_classes=0, checkpoint_path=str(export / "model.safetensors"))
    assert torch.isfinite(model(torch.zeros(1, *model.pretrained_cfg["input_size"]))).all()


def test_base_is_the_released_backbone_and_the_methods_are_not(study: Path) -> None:
    weights = {
        name: (study / CELLS / f"{name}/model.safetensors").read_bytes()
        for name in ("base/n0/s0/export/i0", "random/n0/s0/export/i0", "mae/n4/s0/export/i4")
    }
    assert weights["base/n0/s0/export/i0"] == (study / "results/quick/backbones/tiny/model.safetensors").read_bytes()
    assert len(set(weights.values())) == 3


def test_snakemakes_own_report_is_made(study: Path) -> None:
    snakemake(study, "--report", "report.html")
    assert (study / "report.html").stat().st_size > 100_000


def test_from_scratch_again_the_scores_are_bit_equal(study: Path, tmp_path: Path) -> None:
    again = tiny_study(tmp_path / "again", methods={"random": {}})
    snakemake(again)
    first, second = study / "results/quick/scores.csv", again / "results/quick/scores.csv"
    assert lowdata(study, "compare", str(first), str(second)).stdout.strip() == "equal"
    values = [pd.read_csv(path, dtype=str)["value"].tolist() for path in (first, second)]
    assert values[0] == values[1]
    changed = second.read_text().replace(values[1][0], "0.123456", 1)
    second.write_text(changed)
    assert "rows differ" in lowdata(study, "compare", str(first), str(second), fails=True).stderr


CELL = "tiny/camvid/mae/n4/s0"


def training_command(folder: Path) -> list[str]:
    """Return a longer training with two milestones on the study's inputs, in a results folder of its own."""
    long = {
        "methods": {"mae": {"optimiser": {"lr": 1e-3}}},
        "training": {"epochs": 40, "max_steps": None, "milestones": [40, 100]},
    }
    (folder / "long.yaml").write_text(yaml.safe_dump(merged(STUDY, long)))
    return [
        *("lowdata-cpt", "pretrain", "--study", f"{folder}/long.yaml", "--results", f"{folder}/results"),
        *("--cell", CELL, "--device", "cpu", "--checkpoint-seconds", "0.01"),
    ]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGUSR2, 75), (signal.SIGTERM, 75)])
def test_training_killed_again_and_again_ends_bit_equal(
    study: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    def checkpoints(folder: Path) -> Path:
        return study / "work/checkpoints" / str(folder / "results").lstrip("/") / CELL

    def start(folder: Path) -> subprocess.Popen[bytes]:
        (folder / "results").mkdir(parents=True, exist_ok=True)
        for part in ("backbones", "data", "subsets"):
            if not (folder / "results" / part).exists():
                (folder / "results" / part).symlink_to(study / "results/quick" / part)
        return subprocess.Popen(training_command(folder), cwd=study, env=environment(), stdout=subprocess.DEVNULL)

    def step(folder: Path) -> int:
        found = list(checkpoints(folder).glob("*/progress.json"))
        return int(json.loads(found[0].read_text())["step"]) if found else 0

    assert start(tmp_path / "whole").wait(300) == 0
    folder, stopped = tmp_path / "killed", 0
    for target in (3, 15, 28):
        process = start(folder)
        while process.poll() is None and step(folder) < target:
            time.sleep(0.002)
        if process.poll() is None:
            os.kill(process.pid, number)
            stopped += process.wait(60) == status
    assert stopped >= 2, "the run ended before it could be stopped"
    assert start(folder).wait(300) == 0
    whole, killed = (tmp_path / name / "results/cells" / CELL / "export" for name in ("whole", "killed"))
    assert sorted(path.name for path in whole.iterdir()) == ["i100", "i160", "i40"]
    for milestone in ("i40", "i100", "i160"):
        model = f"{milestone}/model.safetensors"
        assert (whole / model).read_bytes() == (killed / model).read_bytes()
    assert not checkpoints(folder).exists()


def error_of(folder: Path, **overrides: Any) -> str:
    """Return what a failing run says, traceback or not."""
    write_config(folder, **overrides)
    done = snakemake(folder, fails=True)
    return done.stdout + done.stderr


def test_bad_input_gives_one_clear_error(tmp_path: Path) -> None:
    """The study that is run where none is named; `test_refusals` has those that are."""
    said = error_of(tiny_study(tmp_path / "p"), trainings={})
    assert "trainings: unknown key; did you mean 'training'?" in said
    assert "Traceback" not in said
    assert "1 error(s)" in said


def test_a_domain_without_data_is_not_run_and_the_study_goes_on(tmp_path: Path) -> None:
    overrides: dict[str, Any] = {"domains": {"neu_steel": {"resolution": 32, "sizes": [4]}}, "absent_data": "skip"}
    folder = tiny_study(tmp_path / "p", **overrides)
    said = snakemake(folder).stderr
    assert "not run: domain neu_steel: no data in data/neu_steel" in said
    results = folder / "results/quick"
    assert set(pd.read_csv(results / "scores.csv")["domain"]) == {"camvid"}
    assert list(json.loads((results / "not_run.json").read_text())) == ["neu_steel"]
    assert "no data in data/neu_steel" in (results / "report.html").read_text()
    assert planned(folder) == {}


def test_images_without_labels_give_models(tmp_path: Path) -> None:
    domains: dict[str, Any] = {"camvid": None, "imagefolder": {"root": "mine", "sizes": [4], "resolution": 32}}
    folder = tiny_study(tmp_path / "p", domains=domains)
    (folder / "data/mine").mkdir(parents=True)
    for i in range(6):
        Image.new("RGB", (40, 40), (i * 40, 100 + i, 200 - i)).save(folder / f"data/mine/{i}.png")
    snakemake(folder)
    cells = folder / "results/quick/cells/tiny/imagefolder"
    assert {path.parts[-6] for path in cells.glob("*/*/*/export/*/model.safetensors")} == {"base", "diet_cp", "mae"}
    said = lowdata(folder, "headline", "results/quick").stdout
    assert "DIET-CP: effective rank of the features from " in said
    assert "on 6 of your images" in said
    assert "nothing was scored" in said
    report = (folder / "results/quick/report.html").read_text()
    assert said.splitlines()[0] in report
    assert "figure-neighbours-tiny-imagefolder" in report
    assert "figure-loss-tiny-imagefolder" in report
    assert planned(folder) == {}
    assert "nothing would be left" in error_of(folder, domains=domains, keep_models=False)


def test_bad_images_are_quarantined_and_too_many_stop_the_study(tmp_path: Path) -> None:
    folder = tiny_study(tmp_path / "p")
    images = folder / "data/mine"
    images.mkdir(parents=True)
    for i in range(30):
        Image.new("RGB", (40, 40), (i * 8, 100, 200)).save(images / f"{i:02d}.png")
    (images / "empty.png").write_bytes(b"")
    (images / "text.png").write_text("I am no picture.")
    domains: dict[str, Any] = {"camvid": None, "imagefolder": {"root": "mine", "sizes": [4], "resolution": 32}}
    said = error_of(folder, domains=domains)
    assert "empty.png" in said or "text.png" in said
    assert "Traceback" not in said
    domains["imagefolder"] |= {"max_quarantined": 0.2}
    write_config(folder, domains=domains)
    snakemake(folder, "data_ready")
    listed = (folder / "results/quick/data/imagefolder/quarantine.csv").read_text()
    assert "empty.png" in listed
    assert "text.png" in listed


def test_a_cluster_that_would_cut_threads_is_refused(tmp_path: Path) -> None:
    folder = tiny_study(tmp_path / "project", resources={"threads": 3})
    sbatch = tmp_path / "bin/sbatch"  # never called: the refusal comes before the first job
    sbatch.parent.mkdir()
    sbatch.write_text("#!/bin/sh\nexit 1\n")
    sbatch.chmod(0o755)
    path = f"{sbatch.parent}{os.pathsep}{environment()['PATH']}"
    said = run(folder, "snakemake", "--executor", "submitit", "--jobs", "1", "--cores", "2", fails=True, PATH=path)
    assert "resources.threads is 3, but the profile's `cores` allows 2; expected --cores 3 or more" in said.stderr
