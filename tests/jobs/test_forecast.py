from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lowdata_cpt.backbones.flops import Geometry, features_flops, geometry
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import write_json
from lowdata_cpt.data.domains.medmnist import MedMNIST
from lowdata_cpt.data.layouts.folders import FolderDomain
from lowdata_cpt.data.layouts.image_folder import ImageFolder
from lowdata_cpt.data.registry import DOMAINS
from lowdata_cpt.dev.fixtures import MAKERS
from lowdata_cpt.dev.generate import ROOT
from lowdata_cpt.jobs.forecast import Assumptions, forecast, render, training_seconds
from lowdata_cpt.methods.mae.config import MAE
from lowdata_cpt.methods.untrained import Base
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.flops import training_flops
from lowdata_cpt.study.grid import cells
from lowdata_cpt.study.load import load
from lowdata_cpt.study.paths import Paths
from tests.jobs.planned import planned_jobs

A = Assumptions()


def study(name: str) -> Study:
    return load(ROOT / f"config/{name}.yaml")


def test_jobs_are_those_that_snakemake_lists(tmp_path: Path) -> None:
    for kind in ("neu_steel", "cifar10", "nyuv2"):
        MAKERS[kind](tmp_path / "data" / kind)
    listed = planned_jobs("embedded", tmp_path, "--config", "absent_data=stop")
    found = forecast(study("embedded"), Paths(tmp_path / "results/embedded"), A)
    assert {**{rule: line.jobs for rule, line in found.lines.items()}, "total": found.jobs} == listed


def test_vits_have_their_published_operations() -> None:
    # ViT-B/16 at 224 px: 17.6 GMACs (timm), here without patch embedding and head.
    assert geometry("vit_base_patch16_dinov3.lvd1689m") == Geometry(768, 12, 16, 5)
    assert features_flops(geometry("vit_base_patch16_224.mae"), 224) / 2e9 == pytest.approx(17.5, rel=0.03)
    with pytest.raises(UserError, match="resnet50 is a ResNet"):
        geometry("resnet50")


def test_methods_rank_by_what_they_compute() -> None:
    shape, methods = geometry("vit_base_patch16_224.mae"), study("paper").methods

    def cost(name: str) -> float:
        return training_flops(methods[name], shape, 224, 32)

    whole = features_flops(shape, 224)
    assert cost("diet_cp") == pytest.approx(whole * (1 + 2 * 2 / 12))
    assert cost("mae") < cost("tec") < cost("glare") < cost("dino") < cost("v_pretraining")
    assert training_flops(Base(), shape, 224, 32) == pytest.approx(3 * whole)


def test_masked_methods_encode_what_they_see() -> None:
    shape = geometry("vit_base_patch16_224.mae")
    # MAE sees 49 of 196 patches and the class token in 12 blocks of 768, and all 197 tokens in 2 blocks of 512.
    mae = MAE(mask_ratio=0.75, decoder_width=512, decoder_depth=2)
    seen, decoder = 12 * (24 * 50 * 768**2 + 4 * 50**2 * 768), 2 * (24 * 197 * 512**2 + 4 * 197**2 * 512)
    assert training_flops(mae, shape, 224, 32) == pytest.approx(3 * (seen + decoder))


@pytest.mark.parametrize(
    "kind", ["ade20k", "aircraft", "camvid", "cifar10", "cityscapes", "loveda", "nyuv2", "pascal_context"]
)
def test_published_counts_are_those_of_the_split_that_the_card_describes(kind: str) -> None:
    (domain,) = (domain for domain in DOMAINS if domain.model_fields["kind"].default == kind)
    assert issubclass(domain, FolderDomain)
    assert all(f"{count:,}" in domain.dataset.split for count in domain.dataset.images)


def test_a_domain_says_how_many_images_it_has() -> None:
    assert MedMNIST(flag="breastmnist").count() == 546 + 78 + 156
    assert MedMNIST(flag="breastmnist", max_images=100).count() == 100 + 78 + 100
    assert ImageFolder(root="/nowhere").count() is None
    published = {domain for domain in DOMAINS if issubclass(domain, FolderDomain)} - {ImageFolder}
    assert all(domain().count() for domain in published)


def test_twice_as_fast_devices_halve_the_computed_part() -> None:
    paper, nowhere = study("paper"), Paths("nowhere")
    slow, fast = (forecast(paper, nowhere, Assumptions(tflops=t, startup=0)) for t in (30, 60))
    assert slow.lines["pretrain"].seconds == pytest.approx(2 * fast.lines["pretrain"].seconds)


def test_the_text_names_totals_and_assumptions() -> None:
    paper = study("paper")
    text = render(forecast(paper, Paths("nowhere"), A), A)
    for part in ("GPU-hours", "disk:", "60 TFLOP/s", "evaluate", "pretrain"):
        assert part in text


def test_training_is_forecast_at_what_was_measured(tmp_path: Path) -> None:
    paper, nowhere, table = study("paper"), Paths("nowhere"), tmp_path / "gpu.json"
    row = {"method": "diet_cp", "model": "vit_base_patch16_224", "size": 224, "precision": "bf16", "peak_tflops": 700.0}
    rows = [row | {"share_of_peak": 0.1}, row | {"model": "vit_large_patch16_224", "error": "out of memory"}]
    write_json(table, {"card": "a card", "rows": rows})
    found = Assumptions.of(paper.resources, None, None, 20.0, table)
    assert found.sustained("diet_cp", 1e9) == pytest.approx(70)
    assert found.sustained("dino", 1e9) == 60
    assumed = Assumptions.of(paper.resources, None, None, 20.0)
    cell = next(cell for cell in cells(paper) if paper.methods[cell.method].method == "diet_cp")
    ratio = (training_seconds(paper, cell, assumed) - 20) / (training_seconds(paper, cell, found) - 20)
    assert ratio == pytest.approx(70 / 60)
    assert "a card" in render(forecast(paper, nowhere, found), found)
    assert not Assumptions.of(study("quick").resources, None, None, None, table).measured  # a CPU's study


ROW = {"method": "dino", "model": "vit_base_patch16_224", "size": 224, "precision": "bf16"}
ROW |= {"peak_tflops": 700.0, "share_of_peak": 0.1}


@pytest.mark.parametrize("of", ["paper", "quick"])
@pytest.mark.parametrize(
    ("table", "said"),
    [
        ([], "not a table of benchmarks/gpu.py, expected card and rows"),
        ({"rows": [ROW]}, "not a table of benchmarks/gpu.py"),
        ({"card": "a card", "rows": {}}, "not a table of benchmarks/gpu.py"),
        ({"card": "a card", "rows": []}, "none of 0 rows is a measurement"),
        ({"card": "a card", "rows": [ROW | {"precision": "fp32"}]}, "none of 1 rows is a measurement"),
        ({"card": "a card", "rows": [ROW, 3]}, "rows.1 is 3; expected a mapping"),
        *[
            ({"card": "a card", "rows": [ROW | {key: value}]}, f"rows.0.{key}")
            for key, values in {
                "share_of_peak": (0, -0.1, 1.5, math.nan, math.inf, "0.1", None, True),
                "peak_tflops": (0, -700, math.nan, math.inf),
                "size": (0, -224, math.nan, "224"),
                "model": (3, None, "no_such_model", "resnet50"),
                "method": (3, None),
            }.items()
            for value in values
        ],
    ],
)
def test_a_table_that_is_none_is_refused(table: Any, said: str, of: str, tmp_path: Path) -> None:
    """Also for a study on CPUs, which does not use it."""
    write_json(tmp_path / "gpu.json", table)
    with pytest.raises(UserError, match=rf"gpu\.json: {re.escape(said)}"):
        Assumptions.of(study(of).resources, None, None, None, tmp_path / "gpu.json")


@pytest.mark.parametrize("content", [[], {}, None, {"tasks": [], "images": {}}, {"tasks": {"a": {"sets": {"t": "x"}}}}])
def test_a_damaged_manifest_is_named(content: Any, tmp_path: Path) -> None:
    for name in study("quick").domains:
        write_json(Paths(tmp_path).manifest(name), content)
    with pytest.raises(UserError, match=r"manifest.json: damaged, expected tasks"):
        forecast(study("quick"), Paths(tmp_path), A)


def test_the_pages_say_what_is_forecast(tmp_path: Path) -> None:
    paper, embedded = study("paper"), study("embedded")
    found = Assumptions.of(paper.resources, None, None, None, ROOT / "benchmarks/gpu.json")
    page = (ROOT / "docs/paper-scale.md").read_text(encoding="utf-8")
    assert render(forecast(paper, Paths(tmp_path), found), found) in page
    hours = forecast(embedded, Paths(tmp_path), Assumptions.of(embedded.resources, None, None, None)).hours(True)
    assert f" {hours:.0f} core-hours by `make forecast STUDY=embedded`" in (ROOT / "README.md").read_text("utf-8")


def test_models_that_are_not_kept_take_no_disk() -> None:
    paper = study("paper")
    kept = paper.model_copy(update={"keep_models": True})
    assert forecast(paper, Paths("nowhere"), A).disk["models kept"] == 0
    assert forecast(kept, Paths("nowhere"), A).disk["models kept"] > 1e11


def test_no_torch_is_needed() -> None:
    code = "import sys, lowdata_cpt.jobs.forecast; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
