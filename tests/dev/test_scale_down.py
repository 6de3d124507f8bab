from __future__ import annotations

from typing import Any

import pytest
import yaml

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.dev.generate import ROOT
from lowdata_cpt.dev.scale_down import architecture, distinct, kind_of, reduced, run
from lowdata_cpt.methods.diet_cp.learner import DietCPLearner
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.grid import cells, probes_of
from lowdata_cpt.study.load import load, validate


@pytest.fixture(scope="module")
def paper() -> Study:
    return load(ROOT / "config/paper.yaml")


def test_backbones_of_the_papers_are_timms(paper: Study) -> None:
    import timm

    known = set(timm.list_pretrained())
    assert {b.model for b in paper.backbones.values()} <= known
    assert "vit_base_patch16_clip_224.openai" in known  # named in docs/paper-scale.md


@pytest.mark.parametrize(
    ("model", "small"),
    [
        ("vit_large_patch16_dinov3.lvd1689m", "vit_small_patch16_dinov3.lvd1689m"),
        ("vit_large_patch16_224.mae", "vit_base_patch16_224.mae"),  # there is no small MAE
        ("vit_small_patch14_dinov2", "vit_small_patch14_dinov2"),
    ],
)
def test_a_large_model_is_tried_as_its_small_relative(model: str, small: str) -> None:
    assert architecture(model) == small


def test_every_method_family_domain_and_task_is_covered(paper: Study) -> None:
    chosen, all_cells = distinct(paper), list(cells(paper))
    small = {name: architecture(b.model) for name, b in paper.backbones.items()}
    for types in (
        lambda c: {(c.method, small[c.backbone])},
        lambda c: {(c.method, probe) for probe in probes_of(paper, c.domain)},
        lambda c: {(small[c.backbone], kind_of(paper, c.domain), p) for p in probes_of(paper, c.domain)},
    ):
        wanted: set[Any] = set().union(*(types(c) for c in all_cells))
        assert set().union(*(types(c) for c in chosen)) == wanted
    assert len(chosen) < len(all_cells) / 40


def test_recipes_stay_but_for_what_is_said(paper: Study) -> None:
    small = reduced(paper, distinct(paper))
    assert set(small.methods) == set(paper.methods)
    for name, method in small.methods.items():
        assert method.optimiser == paper.methods[name].optimiser
        assert small.training_of(name).length(4) == (2, 1)
    assert {b.weights for b in small.backbones.values()} == {"random"}
    assert all(small.probes.image_sizes[d] != b.image_size for d in ("ade20k",) for b in small.backbones.values())


TINY: dict[str, Any] = yaml.safe_load("""
study: tiny
backbones: {tiny: {model: vit_tiny_patch16_224}}
domains: {nyuv2: {sizes: [100]}, cifar10: {sizes: [100]}}
methods: {base: {}, diet_cp: {}, v_pretraining: {}}
grid:
  - {domains: [nyuv2], methods: [base, v_pretraining]}
  - {domains: [cifar10], methods: [base, diet_cp]}
training: {epochs: 150}
""")


def test_cells_run_two_steps(capsys: pytest.CaptureFixture[str]) -> None:
    run(validate(TINY), only="nyuv2")
    shown = capsys.readouterr().out
    assert "tiny/nyuv2/v_pretraining" in shown
    assert "segmentation,depth): ok" in shown
    assert "cifar10" not in shown


def test_a_failing_cell_is_named_and_the_others_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(DietCPLearner, "step", broken)
    with pytest.raises(UserError, match="1 of 2 cell types failed: tiny/cifar10/diet_cp"):
        run(validate(TINY), only="cifar10")
    shown = capsys.readouterr().out
    assert "FAILED RuntimeError: shapes do not fit" in shown
    assert "tiny/cifar10/base" in shown


def test_nothing_to_try_is_an_error() -> None:
    with pytest.raises(UserError, match="'moon'"):
        run(validate(TINY), only="moon")


@pytest.mark.slow
def test_the_papers_small_dinov3_cells_run(paper: Study) -> None:
    run(paper, only="vit_small_dinov3")
