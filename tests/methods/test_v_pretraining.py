"""The learner: labels never reach θ, the two value gradients agree, controls, resume, export."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Literal

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from lowdata_cpt.core import code_versions as codeversion
from lowdata_cpt.methods.dino.learner import DINOLearner
from lowdata_cpt.methods.v_pretraining import diagnostics as pictures
from lowdata_cpt.methods.v_pretraining.config import VPretraining
from lowdata_cpt.methods.v_pretraining.learner import VPretrainingLearner
from lowdata_cpt.methods.v_pretraining.predict import Arm, predicted_vs_realised
from lowdata_cpt.training.learner import Progress, Views
from tests.methods.harness import BACKBONES, make_context, make_images, run_steps
from tests.methods.v_pretraining_setup import make_feedback, small_config, small_learner

IMAGES = make_images(8, 32)


def crops(learner: VPretrainingLearner, seed: int = 0, images: Tensor = IMAGES) -> Views:
    return learner.views(images[:4], torch.Generator().manual_seed(seed))


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in module.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_labels_reach_theta_through_phi_only() -> None:
    """Permuted labels give another φ; with φ made equal again, the learner's update is equal bit for bit."""
    ours, permuted = (small_learner(feedback=make_feedback(permute=k)) for k in (0, 5))
    before = snapshot(ours.designer)
    for learner in (ours, permuted):
        torch.manual_seed(1)
        learner.meta_step(crops(learner), Progress(0, 10, 0, 5))
    assert not same(snapshot(ours.designer), before)
    assert not same(snapshot(ours.designer), snapshot(permuted.designer))
    permuted.designer.load_state_dict(ours.designer.state_dict())
    config = ours.recipe
    losses = [run_steps(learner, config, IMAGES, 1) for learner in (ours, permuted)]  # its meta step is done already
    assert losses[0] == losses[1]
    for name in ("student", "teacher", "centre"):
        assert same(snapshot(getattr(ours, name)), snapshot(getattr(permuted, name)))


def test_permuted_labels_without_phi_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same over four whole steps with a meta step before each, φ held by a learning rate of zero."""
    runs = []
    for k in (0, 5):
        learner = small_learner(small_config(every=1), feedback=make_feedback(permute=k))
        learner.designer_optimiser.param_groups[0]["lr"] = 0.0
        runs.append((run_steps(learner, learner.recipe, IMAGES, 4), snapshot(learner.student), learner.heads))
    assert runs[0][0] == runs[1][0]
    assert same(runs[0][1], runs[1][1])
    assert not same(snapshot(runs[0][2]), snapshot(runs[1][2]))


def test_meta_step_touches_nothing_of_the_learner() -> None:
    for gradient in ("double_backward", "finite_difference"):
        learner = small_learner(small_config(value_gradient=gradient))
        views = crops(learner)
        parts = {name: snapshot(getattr(learner, name)) for name in ("student", "teacher", "centre")}
        flags = [p.requires_grad for p in learner.parameters()]
        torch.manual_seed(3)
        stream = torch.get_rng_state()
        learner.meta_step(views, Progress(0, 10, 0, 5))
        assert torch.equal(torch.get_rng_state(), stream)
        assert all(same(before, snapshot(getattr(learner, name))) for name, before in parts.items())
        assert [p.requires_grad for p in learner.parameters()] == flags
        assert all(p.grad is None for p in learner.parameters())
        assert not learner.teacher_logits


def test_views_draw_the_same_crops_as_the_control() -> None:
    learned = small_learner()
    random = small_learner(small_config(designer="random_mask"))
    first, second = crops(learned), crops(random)
    assert torch.equal(first["global"], second["global"])
    assert second["mask"].mean((2, 3, 4)).unique().tolist() == [pytest.approx(0.6, abs=1e-3)]
    control = DINOLearner.views(learned, IMAGES[:4], torch.Generator().manual_seed(0))
    assert all(torch.equal(control[side], first[side]) for side in control)


def test_random_masks_leave_the_crops_of_the_next_micro_batch_as_they_are() -> None:
    random, generator = small_learner(small_config(designer="random_mask")), torch.Generator().manual_seed(0)
    control = torch.Generator().manual_seed(0)
    first, second = (random.views(IMAGES[:2], generator) for _ in range(2))
    plain = [DINOLearner.views(random, IMAGES[:2], control) for _ in range(2)]
    assert torch.equal(first["global"], plain[0]["global"])
    assert torch.equal(second["global"], plain[1]["global"])
    assert not torch.equal(first["mask"], second["mask"])


def test_both_feedback_losses_act() -> None:
    def g_down(**weights: float) -> torch.Tensor:
        learner = small_learner(small_config(**weights))
        gradients, _ = learner.downstream_gradient(learner.draw("meta", torch.Generator().manual_seed(0)))
        return torch.cat([gradient.flatten() for gradient in gradients])

    segmentation, depth = g_down(segmentation_weight=1, depth_weight=0), g_down(segmentation_weight=0, depth_weight=1)
    both = g_down(segmentation_weight=4, depth_weight=0.5)
    assert segmentation.norm() > 0
    assert depth.norm() > 0
    torch.testing.assert_close(both, 4 * segmentation + 0.5 * depth, rtol=1e-4, atol=1e-6)


def test_whole_mask_is_the_control(monkeypatch: pytest.MonkeyPatch) -> None:
    """With μ = 1 everywhere and no meta step, the losses are those of plain continued DINO from the same weights."""
    frozen = small_learner(small_config(designer="frozen"))
    torch.nn.init.constant_(frozen.designer.out.bias, 1e4)
    progress = Progress(1, 10, 0, 5)
    views = crops(frozen)
    loss, _ = frozen.step(views, torch.arange(4), progress)
    frozen.teacher_logits.clear()
    control, _ = DINOLearner.step(frozen, views, torch.arange(4), progress)
    assert float(loss) == float(control)


def test_centre_starts_with_the_whole_first_batch_as_the_controls_does() -> None:
    """The first meta step sees one image; the control's centre comes from all four."""
    learner = small_learner(small_config(value_batch=1, centre_start="first_batch"))
    learner.designer_optimiser.param_groups[0]["lr"] = 0.0
    learner.step(crops(learner), torch.arange(4), Progress(0, 10, 0, 5))
    (logits,) = learner.teacher_logits
    torch.testing.assert_close(learner.centre.centre, logits.mean((0, 1)))


def gradient_of(learner: VPretrainingLearner, views: Views, g_down: list[Tensor]) -> tuple[float, Tensor]:
    parts, gradients = learner.designer_gradient(views, g_down, Progress(0, 10, 0, 5))
    return float(parts["value"]), torch.cat([g.flatten() for g in gradients])


@pytest.fixture
def double_learners(monkeypatch: pytest.MonkeyPatch) -> tuple[VPretrainingLearner, VPretrainingLearner, Views]:
    """The two kinds of value gradient with the same weights, everything in float64 and λ = 0."""
    views = {side: crop.double() for side, crop in crops(small_learner()).items()}
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    learners = []
    for kind in ("double_backward", "finite_difference"):
        config = small_config(
            value_gradient=kind, sparsity_weight=0.0, variation_weight=0.0, finite_difference_step=1e-4
        )
        learners.append(small_learner(config).double())
    torch.nn.init.normal_(learners[0].centre.centre)
    learners[1].load_state_dict(learners[0].state_dict())
    return learners[0], learners[1], views


def test_value_gradients_agree(double_learners: tuple[VPretrainingLearner, VPretrainingLearner, Views]) -> None:
    exact, near, views = double_learners
    g_down, _ = exact.downstream_gradient(exact.draw("meta", torch.Generator().manual_seed(0)))
    value, gradient = gradient_of(exact, views, g_down)
    other_value, other = gradient_of(near, views, g_down)
    assert float(gradient.norm()) > 0
    assert other_value == pytest.approx(value, rel=1e-4)
    assert float((gradient - other).norm() / gradient.norm()) < 1e-4


def test_value_gradient_is_the_slope_of_the_value(
    double_learners: tuple[VPretrainingLearner, VPretrainingLearner, Views],
) -> None:
    """Move φ itself: covers the student's and the teacher's path, and that local crops count."""
    learner, _, views = double_learners
    g_down, _ = learner.downstream_gradient(learner.draw("meta", torch.Generator().manual_seed(0)))
    _, gradient = gradient_of(learner, views, g_down)
    parameters = list(learner.designer.parameters())
    start = torch.nn.utils.parameters_to_vector(parameters).detach().clone()
    direction = torch.randn(start.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(start + sign * 1e-5 * direction, parameters)
        values.append(gradient_of(learner, views, g_down)[0])
    slope = (values[0] - values[1]) / 2e-5
    # designer_gradient is that of −V.
    assert slope == pytest.approx(-float(gradient @ direction), rel=1e-4)


def test_designer_raises_the_value() -> None:
    config = small_config(sparsity_weight=0.0, variation_weight=0.0, designer_lr=1e-2)
    learner = small_learner(config)
    views = crops(learner, 0, IMAGES[:2])
    g_down, _ = learner.downstream_gradient(learner.draw("meta", torch.Generator().manual_seed(0)))
    values = [float(learner.update_designer(views, g_down, Progress(0, 10, 0, 5))["value"]) for _ in range(15)]
    assert values[-1] > values[0]


def test_regulariser_pulls_to_the_keep_ratio() -> None:
    learner = small_learner(small_config(keep=0.3, sparsity_weight=1e4, designer_lr=3e-2))
    torch.nn.init.constant_(learner.designer.out.bias, 2.0)
    views = crops(learner, 0, IMAGES[:2])
    g_down, _ = learner.downstream_gradient(learner.draw("meta", torch.Generator().manual_seed(0)))
    for _ in range(40):
        learner.update_designer(views, g_down, Progress(0, 10, 0, 5))
    with torch.no_grad():
        mask = learner.designer(views["global"].flatten(0, 1))
    assert float(mask.mean()) == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize("labels", [{"segmentation": False}, {"depth": False}, {}])
def test_heads_learn_from_either_label(labels: dict[str, bool]) -> None:
    learner = small_learner(feedback=make_feedback(**labels))
    first = learner.fit_heads(1, torch.Generator().manual_seed(0))
    last = learner.fit_heads(40, torch.Generator().manual_seed(0))
    assert set(first) == {"segmentation", "depth"} - set(labels)
    assert all(last[task] < first[task] for task in first)


def test_controls() -> None:
    updated = {}
    for kind in ("learned", "random_feedback", "frozen", "random_mask"):
        learner = small_learner(small_config(designer=kind))
        before = snapshot(learner.designer)
        run_steps(learner, learner.recipe, IMAGES, 3)
        updated[kind] = snapshot(learner.designer)
        assert same(before, updated[kind]) == (kind in ("frozen", "random_mask"))
        assert bool(learner.own_optimisers()) == (kind in ("learned", "random_feedback"))
    assert not same(updated["learned"], updated["random_feedback"])


def test_untaught_controls_need_no_labels() -> None:
    for kind in ("frozen", "random_mask"):
        config = small_config(designer=kind)
        with_labels = small_learner(config)
        context = make_context(with_labels.backbone, 8, 10, 4, feedback=None)
        VPretrainingLearner(with_labels.backbone, config, context)


def test_unlabelled_batch_is_the_previous_one() -> None:
    learner = small_learner()
    views = crops(learner, 0)
    assert torch.equal(learner.unlabelled(views)["global"], views["global"][:, :3])
    learner.step(views, torch.arange(4), Progress(1, 10, 0, 5))
    later = crops(learner, 1)
    for side in ("global", "local"):
        assert torch.equal(learner.unlabelled(later)[side], views[side][:, :3])
    small = crops(learner, 2, IMAGES[:2])
    learner.step(small, torch.arange(2), Progress(3, 10, 0, 5))
    assert torch.equal(learner.unlabelled(later)["global"], small["global"])


def test_meta_step_once_a_step_whatever_the_micro_batches() -> None:
    learner = small_learner()
    for step, changes in ((0, True), (0, False), (1, False), (2, True)):
        before = snapshot(learner.designer)
        _, parts = learner.step(crops(learner, step), torch.arange(4), Progress(step, 10, 0, 5))
        assert same(before, snapshot(learner.designer)) != changes
        assert ("value" in parts) == (step % 2 == 0)
        assert {"keep", "total_variation"} <= parts.keys()


@pytest.mark.parametrize("gradient", ["double_backward", "finite_difference"])
def test_resume_is_bit_equal(gradient: str) -> None:
    config = small_config(value_gradient=gradient, head_warmup=2)

    def advance(learner: VPretrainingLearner, main: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            torch.manual_seed(1000 + step)
            views = learner.views(IMAGES[step % 5 : step % 5 + 4], torch.Generator().manual_seed(step))
            main.zero_grad(set_to_none=True)
            learner.step(views, torch.arange(4), Progress(step, 10, step // 2, 5))[0].backward()
            main.step()
            learner.after_step(Progress(step, 10, step // 2, 5))

    def fresh() -> tuple[VPretrainingLearner, torch.optim.Optimizer]:
        learner = small_learner(config)
        return learner, torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=1e-4)

    whole, main = fresh()
    advance(whole, main, range(2))
    stored = snapshot(whole)
    optimisers = {
        name: {"state": {i: {k: v.clone() for k, v in s.items()} for i, s in o.state_dict()["state"].items()}}
        for name, o in {"main": main, **whole.own_optimisers()}.items()
    }
    advance(whole, main, range(2, 5))
    again, main = fresh()
    again.load_state_dict(stored)
    for name, optimiser in {"main": main, **again.own_optimisers()}.items():
        optimiser.load_state_dict(optimisers[name] | {"param_groups": optimiser.state_dict()["param_groups"]})
    advance(again, main, range(2, 5))
    assert same(snapshot(whole), snapshot(again))


@pytest.mark.parametrize("kind", list(BACKBONES))
def test_three_steps_and_export(kind: str, tmp_path: Path) -> None:
    name, size = BACKBONES[kind]
    config = small_config(value_batch=2, local_crops=1)
    learner = small_learner(config, backbone=(name, size), feedback=make_feedback(6, size))
    losses = run_steps(learner, config, make_images(4, size), 3, batch=2)
    assert all(torch.isfinite(torch.tensor(losses)))
    save_file(learner.export().backbone, tmp_path / "model.safetensors")
    opened = timm.create_model(
        name, num_classes=0, dynamic_img_size=True, checkpoint_path=tmp_path / "model.safetensors"
    ).eval()
    x = torch.randn(1, 3, size, size)
    with torch.no_grad():
        ours = learner.backbone.eval()(x)
        tokens = opened.forward_features(x)
    torch.testing.assert_close(tokens[:, 0], ours.cls, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tokens[:, opened.num_prefix_tokens :], ours.patches, rtol=1e-5, atol=1e-5)


def test_bf16_autocast_leaves_the_meta_step_in_float32() -> None:
    learner, plain = small_learner(), small_learner()
    views = crops(learner)
    with torch.autocast("cpu", torch.bfloat16):
        parts = learner.meta_step(views, Progress(0, 10, 0, 5))
    expected = plain.meta_step(views, Progress(0, 10, 0, 5))
    assert parts["value"].dtype == torch.float32
    assert float(parts["value"]) == float(expected["value"])


@pytest.mark.parametrize(("update", "lr", "least"), [("sgd", 3e-4, 0.9), ("adamw", 1e-5, 0.4)])
def test_predicted_fall_correlates_with_the_realised(update: Literal["sgd", "adamw"], lr: float, least: float) -> None:
    learner = small_learner(small_config(keep=0.9))
    learner.fit_heads(60, torch.Generator().manual_seed(0))
    arm = Arm(update, "last_blocks", lr)
    pairs = predicted_vs_realised(learner, make_images(32, 32, seed=3), arms=[arm], count=16, batch_size=4)
    predicted, realised = (part[0] for part in pairs)
    correlation = float(torch.corrcoef(torch.stack([predicted, realised]))[0, 1])
    print(f"{update}: r = {correlation:.3f}, n = {len(predicted)}")
    assert correlation > least
    if update == "sgd":
        torch.testing.assert_close(predicted, realised, rtol=0.3, atol=float(predicted.abs().max()) / 10)


def test_pictures_are_masks_and_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "PAIRS", 3)
    learner = small_learner()
    mask = pictures.during(learner, make_images(2, 48))["mask"]
    assert mask.shape == (2, 32, 32)
    assert 0 <= mask.min() <= mask.max() <= 1
    end = pictures.at_the_end(learner, IMAGES)
    assert end["predicted"].shape == end["realised"].shape == (len(end["arms"]), 3)


def test_prediction_leaves_the_learner_as_it_was() -> None:
    learner = small_learner()
    before = snapshot(learner)
    _, realised = predicted_vs_realised(learner, IMAGES, count=2, batch_size=4)
    assert realised.shape == (4, 2)
    assert bool((realised != 0).all())
    assert same(before, snapshot(learner))
    assert not learner.teacher_logits
    assert all(p.grad is None for p in learner.parameters())


def test_documented_presets_are_valid() -> None:
    text = (Path(__file__).parents[2] / "docs/methods/v_pretraining.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.S)]
    presets = {name: preset for block in blocks for name, preset in block.items()}
    assert {"ade20k_vit_b", "ade20k_vit_l", "nyuv2_vit_b", "nyuv2_vit_l"} <= presets.keys()
    for preset in presets.values():
        VPretraining(**preset["method"])
    assert VPretraining(**presets["ade20k_vit_b"]["method"]) == VPretraining()


def test_code_version_covers_the_learner_it_extends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(shutil.copytree(codeversion.PACKAGE, tmp_path / "package"))
    monkeypatch.setattr(codeversion, "PACKAGE", package)
    before = codeversion.code_version(*VPretraining.code_modules())
    learner = package / "methods/dino/learner.py"
    learner.write_text(learner.read_text(encoding="utf-8") + "\nCHANGED = 1\n", encoding="utf-8")
    codeversion._read.cache_clear()
    assert codeversion.code_version(*VPretraining.code_modules()) != before


def test_the_value_is_of_meta_images_under_the_tasks_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = small_learner()
    parts: list[str] = []
    draw = learner.pool.draw
    monkeypatch.setattr(learner.pool, "draw", lambda part, *rest: parts.append(part) or draw(part, *rest))
    learner.meta_step(crops(learner), Progress(0, 10, 0, 5))
    assert parts == ["train", "meta"]
    losses = {"segmentation": torch.tensor(2.0), "depth": torch.tensor(3.0)}
    assert float(learner.weighted(losses)) == 2 + 8 * 3
