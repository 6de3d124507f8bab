from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from pydantic import ValidationError
from torch import Tensor

from lowdata_cpt.backbones import weights
from lowdata_cpt.backbones.adapters import attach
from lowdata_cpt.methods.glare import diagnostics as pictures
from lowdata_cpt.methods.glare.config import GLARE
from lowdata_cpt.methods.glare.learner import Encoded, GLARELearner
from lowdata_cpt.training.config import Optimiser
from lowdata_cpt.training.learner import Progress
from tests.methods.harness import BACKBONES, make_backbone, make_images, make_learner, run_steps

TERMS = ("global", "regional", "local")
SMALL = {"prototypes": 32, "head_hidden": 32, "head_bottleneck": 16, "rank": 8, "optimiser": Optimiser(lr=3e-3)}
MIDDLE = Progress(5, 10, 2, 5)


def small_learner(image_size: int = 64, **changes: object) -> tuple[GLARELearner, GLARE]:
    config = GLARE.model_validate(SMALL | changes)
    learner = make_learner(config, make_backbone("test_vit", image_size))
    assert isinstance(learner, GLARELearner)
    return learner, config


def only(term: str) -> dict[str, float]:
    return {f"weight_{name}": float(name == term) for name in TERMS}


def snapshot(learner: GLARELearner) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in learner.state_dict().items()}


@pytest.mark.parametrize("kind", BACKBONES)
def test_three_steps_and_an_export_that_reopens(kind: str, tmp_path: Path) -> None:
    """Step 0 is the frozen backbone bit for bit; the export is that backbone, and its adapter gives the rest."""
    name, size = BACKBONES[kind]
    backbone, x = make_backbone(name, size).eval(), torch.randn(2, 3, size, size)
    with torch.no_grad():
        frozen = backbone(x)
    config = GLARE.model_validate(SMALL)
    learner = make_learner(config, backbone)
    assert isinstance(learner, GLARELearner)
    with torch.no_grad():
        start = learner.encode(x[:, None])
    assert torch.equal(start.cls[:, 0], frozen.cls)
    assert torch.equal(start.patches[:, 0], frozen.patches)

    losses = run_steps(learner, config, make_images(4, size), 3, batch=2)
    assert all(torch.isfinite(torch.tensor(losses)))
    with torch.no_grad():
        now = learner.encode(x[:, None])
    assert not torch.allclose(now.patches[:, 0], frozen.patches, atol=1e-4)

    export = learner.export()
    weights.save_export(tmp_path, name, export.backbone, export.adapter, export.adapter_config)
    model_file = tmp_path / "model.safetensors"
    model = timm.create_model(name, num_classes=0, dynamic_img_size=True, checkpoint_path=str(model_file)).eval()
    with torch.no_grad():
        untouched = model.forward_features(x)[:, backbone.num_prefix_tokens :]
        adapted = weights.open_export(tmp_path, backbone.image_size)(x)
    torch.testing.assert_close(untouched, frozen.patches, atol=1e-5, rtol=0)
    torch.testing.assert_close(adapted.patches, now.patches[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(adapted.cls, now.cls[:, 0], atol=1e-5, rtol=0)


def test_only_adapters_heads_and_cross_attention_change_in_ten_steps() -> None:
    learner, config = small_learner()
    trained = {name for name, p in learner.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"student", "cross_attention"}
    before = snapshot(learner)
    run_steps(learner, config, make_images(8, 80), 10)
    for key, value in learner.state_dict().items():
        if key.startswith("backbone."):
            assert torch.equal(value, before[key]), key
    after = learner.state_dict()
    assert [key for key in sorted(trained) if torch.equal(after[key], before[key])] == []
    assert any(not torch.equal(after[key], before[key]) for key in after if key.startswith("teacher.adapters."))


def test_every_trained_parameter_gets_a_gradient() -> None:
    """The down-projections get theirs from the second step on, since the up-projections start at zero."""
    learner, config = small_learner()
    run_steps(learner, config, make_images(8, 80), 2)
    for name, parameter in learner.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


@pytest.mark.parametrize("term", TERMS)
def test_each_term_alone_falls_through_the_adapters(term: str) -> None:
    """A small set of views and a fixed teacher; heads and cross-attention are frozen too, so adapters do the work."""
    learner, _ = small_learner(**only(term), teacher_temperature=0.04)
    for name, parameter in learner.named_parameters():
        parameter.requires_grad_(name.startswith("student.adapters."))
    views = learner.views(make_images(8, 80), torch.Generator().manual_seed(0))
    optimiser = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(25):
        torch.manual_seed(0)
        optimiser.zero_grad()
        loss, parts = learner.step(views, torch.arange(8), MIDDLE)
        loss.backward()
        optimiser.step()
        assert set(parts) == {term}
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("term", TERMS)
def test_each_term_alone_falls_in_training(term: str) -> None:
    """As in a run: new views every step, a moving teacher and centre; the centre starts at the first batch."""
    training = {"centre_start": "first_batch", "ema": 0.99, "prototypes": 256, "optimiser": Optimiser(lr=3e-4)}
    learner, config = small_learner(**only(term), **training)
    losses = run_steps(learner, config, make_images(8, 80), 30, steps=30, batch=8)
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.02, losses


def test_pictures_show_regions_and_where_they_are_found() -> None:
    learner, _ = small_learner()
    shown = pictures.during(learner, make_images(3, 80))
    grid = learner.backbone.grid(64)
    assert shown["views"].shape == (2, 3, 64, 64, 3)
    assert shown["region"].shape == shown["found"].shape == shown["attention"].shape == (3, grid, grid)
    assert shown["region"].any((1, 2)).all()
    assert np.allclose(shown["found"].sum((1, 2)), 1, atol=1e-5)
    again = pictures.during(learner, make_images(3, 80))
    assert all(np.array_equal(shown[name], again[name]) for name in shown)
    learner, _ = small_learner(weight_regional=0.0)
    assert pictures.during(learner, make_images(3, 80)) == {}


@pytest.mark.parametrize("off", TERMS)
def test_a_term_of_weight_zero_does_no_work(off: str) -> None:
    learner, config = small_learner(**{f"weight_{off}": 0.0})
    assert off not in learner.student
    assert off not in learner.centres
    views = learner.views(make_images(4, 64), torch.Generator().manual_seed(0))
    assert ("blurred" in views) is (off != "local")
    assert (learner.cross_attention is None) is (off == "regional")
    _, parts = learner.step(views, torch.arange(4), MIDDLE)
    assert set(parts) == set(TERMS) - {off}
    assert len(run_steps(learner, config, make_images(4, 64), 2)) == 2


def test_loss_is_the_weighted_sum_of_its_terms() -> None:
    learner, _ = small_learner(weight_global=0.5, weight_regional=2.0, weight_local=3.0)
    views = learner.views(make_images(4, 64), torch.Generator().manual_seed(0))
    loss, parts = learner.step(views, torch.arange(4), MIDDLE)
    torch.testing.assert_close(loss, 0.5 * parts["global"] + 2 * parts["regional"] + 3 * parts["local"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight_global": 0, "weight_regional": 0, "weight_local": 0}, "at least one above 0"),
        ({"region_sides": (4, 2)}, "smallest <= largest"),
        ({"blur_kernel": 4}, "odd number"),
    ],
)
def test_a_config_that_cannot_work_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GLARE.model_validate(changes)


def test_local_pairs_blurred_patches_with_themselves_and_others_by_place() -> None:
    """Tokens that name their view, image and patch: what reaches the two heads must be the pairs of the geometry."""
    learner, _ = small_learner(**only("local"))
    views = learner.views(make_images(4, 80), torch.Generator().manual_seed(0))
    match, chosen = views["match"], views["chosen"]
    assert (match >= 0).any()
    assert (match < 0).any()
    names = torch.arange(match.numel()).view(2, 4, 16)
    width = learner.backbone.width
    tokens = names.unsqueeze(-1).float().expand(-1, -1, -1, width)
    encoded = Encoded(torch.zeros(2, 4, width), tokens, None)
    seen: dict[str, Tensor] = {}
    for side in ("student", "teacher"):
        network = learner.student if side == "student" else learner.teacher
        network["local"].register_forward_hook(lambda _, args, __, side=side: seen.update({side: args[0][:, 0]}))
    learner.local(encoded, encoded, views, 0.04)
    expected = [(int(n), int(n)) for n in names[chosen]]
    for v, b, n in (match >= 0).nonzero().tolist():
        expected.append((int(names[v, b, n]), int(names[1 - v, b, match[v, b, n]])))
    assert list(zip(seen["student"].int().tolist(), seen["teacher"].int().tolist(), strict=True)) == expected


def test_local_term_without_overlap_keeps_the_blurred_part() -> None:
    learner, _ = small_learner(**only("local"))
    views = learner.views(make_images(4, 80), torch.Generator().manual_seed(0))
    views["match"] = torch.full_like(views["match"], -1)
    loss, _ = learner.step(views, torch.arange(4), MIDDLE)
    assert torch.isfinite(loss)


def test_student_sees_blurred_patches_and_teacher_clean_ones() -> None:
    learner, _ = small_learner()
    views = learner.views(make_images(4, 80), torch.Generator().manual_seed(0))
    changed = (views["clean"] != views["blurred"]).any(2)
    patches = changed.unflatten(-1, (4, 16)).unflatten(-3, (4, 16)).any(-1).any(-2).flatten(-2)
    assert not (patches & ~views["chosen"]).any()
    assert patches.any()


def test_one_pass_each_with_its_own_adapters_and_views(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, _ = small_learner()
    views = learner.views(make_images(4, 80), torch.Generator().manual_seed(0))
    encode, passes = learner.encode, []

    def watch(x: Tensor, attention: bool = False) -> Encoded:
        seen = next(key for key in ("clean", "blurred") if x is views[key])
        owner = next(
            side
            for side in ("student", "teacher")
            if [hook.adapter for hook in learner.hooks.blocks] == list(getattr(learner, side)["adapters"])
        )
        passes.append((owner, seen, torch.is_grad_enabled(), attention))
        return encode(x, attention)

    monkeypatch.setattr(learner, "encode", watch)
    learner.step(views, torch.arange(4), MIDDLE)
    assert passes == [("teacher", "clean", False, True), ("student", "blurred", True, False)]


def test_regional_compares_a_region_with_what_the_other_view_returns() -> None:
    """If the other view's patches change, the student's side changes and the teacher's target does not."""
    learner, _ = small_learner(**only("regional"))
    torch.manual_seed(0)
    width = learner.backbone.width
    attention = torch.rand(8, 2, 16).softmax(-1)
    student = Encoded(torch.zeros(2, 4, width), torch.randn(2, 4, 16, width), None)
    teacher = Encoded(torch.zeros(2, 4, width), torch.randn(2, 4, 16, width), attention)
    seen: list[Tensor] = []
    learner.student["regional"].register_forward_hook(lambda _, args, __: seen.append(args[0]))
    learner.teacher["regional"].register_forward_hook(lambda _, args, __: seen.append(args[0]))
    moved = student.patches.clone()
    moved[1] += 1.0
    for patches in (student.patches, moved):
        torch.manual_seed(1)
        learner.regional(student._replace(patches=patches), teacher, 0.04)
    target, first, target_again, second = seen
    assert torch.equal(target, target_again)
    assert first.shape == (8, 8, width)
    # rows 0-3 are regions of view 0, whose values come from view 1
    torch.testing.assert_close(second[:4], first[:4] + 1.0, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(second[4:], first[4:])
    assert second[4:].abs().max() <= student.patches[0].abs().max() + 1e-5


def test_teacher_is_an_average_of_adapters_and_heads() -> None:
    learner, config = small_learner(ema=0.9, ema_end=0.9)
    old = [p.clone() for p in learner.teacher.parameters()]
    run_steps(learner, config, make_images(4, 64), 1)
    for before, now, student in zip(old, learner.teacher.parameters(), learner.student.parameters(), strict=True):
        torch.testing.assert_close(now, 0.9 * before + 0.1 * student, atol=1e-6, rtol=1e-5)
    assert all(learner.centres[term].centre.abs().sum() > 0 for term in TERMS)
    assert all(logits == [] for logits in learner.teacher_logits.values())


@pytest.mark.parametrize("size", [16, 32])
def test_smallest_grids(size: int) -> None:
    learner, config = small_learner(size)
    assert all(torch.isfinite(torch.tensor(run_steps(learner, config, make_images(4, size + 8), 2))))


def test_bf16_autocast() -> None:
    learner, _ = small_learner()
    views = learner.views(make_images(4, 64), torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = learner.step(views, torch.arange(4), MIDDLE)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def test_state_dict_holds_everything_that_changes() -> None:
    first, config = small_learner()
    images = make_images(8, 80)
    run_steps(first, config, images, 3)
    second, _ = small_learner()
    second.load_state_dict(snapshot(first))
    assert run_steps(first, config, images, 2) == run_steps(second, config, images, 2)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


def test_a_deep_copy_is_independent() -> None:
    learner, config = small_learner()
    run_steps(learner, config, make_images(4, 64), 2)
    twin, before, x = copy.deepcopy(learner), snapshot(learner), torch.randn(2, 1, 3, 64, 64)
    run_steps(twin, config, make_images(4, 64), 3)
    for key, value in learner.state_dict().items():
        assert torch.equal(value, before[key]), key
    with torch.no_grad():
        assert not torch.equal(twin.encode(x).cls, learner.encode(x).cls)


@pytest.mark.parametrize("which", ["student", "teacher"])
def test_export_says_whose_adapters(which: str) -> None:
    learner, config = small_learner(export=which)
    run_steps(learner, config, make_images(4, 64), 3)
    export, x = learner.export(), torch.randn(2, 1, 3, 64, 64)
    vit = make_backbone("test_vit", 64).eval()
    attach(vit, export.adapter, export.adapter_config)
    with torch.no_grad(), learner.hooks.using((learner.student if which == "student" else learner.teacher)["adapters"]):
        expected = learner.encode(x).cls[:, 0]
        torch.testing.assert_close(vit(x[:, 0]).cls, expected, atol=1e-5, rtol=0)
