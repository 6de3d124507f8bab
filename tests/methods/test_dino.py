from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from lowdata_cpt.methods.dino.config import DINO
from lowdata_cpt.methods.dino.learner import DINOLearner
from lowdata_cpt.training.config import Optimiser
from lowdata_cpt.training.learner import Progress
from tests.methods.harness import BACKBONES, make_backbone, make_images, make_learner, run_steps

SMALL = {"prototypes": 32, "head_hidden": 32, "head_bottleneck": 16, "local_crops": 2, "optimiser": Optimiser(lr=1e-3)}
START = Progress(0, 10, 0, 5)
LATER = Progress(5, 10, 2, 5)


def small_learner(**changes: object) -> tuple[DINOLearner, DINO]:
    config = DINO.model_validate(SMALL | changes)
    learner = make_learner(config, make_backbone("test_vit", 64))
    assert isinstance(learner, DINOLearner)
    return learner, config


@pytest.mark.parametrize("kind", BACKBONES)
def test_three_steps_and_an_export_that_timm_opens(kind: str, tmp_path: Path) -> None:
    name, size = BACKBONES[kind]
    backbone = make_backbone(name, size)
    before = {key: value.clone() for key, value in backbone.timm_state().items()}
    config = DINO.model_validate(SMALL | {"local_crops": 1})
    learner = make_learner(config, backbone)
    losses = run_steps(learner, config, make_images(4, size), 3, batch=2)
    assert all(torch.isfinite(torch.tensor(losses)))
    state = learner.export().backbone
    assert any(not torch.equal(state[key], before[key]) for key in before)
    save_file(state, tmp_path / "model.safetensors")
    model = timm.create_model(
        name, num_classes=0, dynamic_img_size=True, checkpoint_path=str(tmp_path / "model.safetensors")
    )
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = backbone.eval()(x).patches
        found = model.eval().forward_features(x)[:, backbone.num_prefix_tokens :]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_loss_falls_on_a_small_set() -> None:
    """The same views and a fixed teacher: what is left is the student's gap to it."""
    learner, _ = small_learner()
    views = learner.views(make_images(8, 80), torch.Generator().manual_seed(0))
    optimiser = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss, parts = learner.step(views, torch.arange(8), LATER)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    entropy = float(parts["teacher_entropy"])
    assert losses[-1] - entropy < 0.7 * (losses[0] - entropy)


def test_teacher_follows_after_the_step_and_takes_no_gradient() -> None:
    learner, config = small_learner(ema=0.9, ema_end=0.9)
    old = [p.clone() for p in learner.teacher.parameters()]
    run_steps(learner, config, make_images(4, 64), 1)
    for before, now, student in zip(old, learner.teacher.parameters(), learner.student.parameters(), strict=True):
        torch.testing.assert_close(now, 0.9 * before + 0.1 * student, atol=1e-6, rtol=1e-5)
        assert now.grad is None
    assert learner.centre.centre.abs().sum() > 0


def test_first_loss_uses_the_centre_before_its_update() -> None:
    learner, _ = small_learner()
    learner.step(learner.views(make_images(4, 64), torch.Generator().manual_seed(0)), torch.arange(4), START)
    assert torch.equal(learner.centre.centre, torch.zeros(32))
    learner.after_step(START)
    assert learner.centre.centre.abs().sum() > 0
    assert learner.teacher_logits == []


def test_accumulated_batches_of_unequal_size_share_one_centre_update() -> None:
    learner, _ = small_learner()
    images = make_images(5, 64)
    for part in (images[:3], images[3:]):
        learner.step(learner.views(part, torch.Generator().manual_seed(0)), torch.arange(len(part)), START)
    logits = torch.cat(learner.teacher_logits, dim=1)
    assert logits.shape == (2, 5, 32)
    learner.after_step(START)
    torch.testing.assert_close(learner.centre.centre, 0.1 * logits.mean((0, 1)))


@pytest.mark.parametrize(("progress", "frozen"), [(START, True), (LATER, False)])
def test_prototypes_are_fixed_in_the_first_part_of_the_run(progress: Progress, frozen: bool) -> None:
    learner, _ = small_learner(freeze_last_layer=0.2)
    loss, _ = learner.step(
        learner.views(make_images(4, 64), torch.Generator().manual_seed(0)), torch.arange(4), progress
    )
    loss.backward()
    assert (learner.student["head"].last.weight.grad is None) is frozen
    assert learner.student["backbone"].model.patch_embed.proj.weight.grad is not None


def test_without_local_crops_only_global_views_are_made() -> None:
    learner, config = small_learner(local_crops=0)
    views = learner.views(make_images(4, 64), torch.Generator().manual_seed(0))
    assert set(views) == {"global"}
    assert len(run_steps(learner, config, make_images(4, 64), 2)) == 2


def test_state_dict_holds_everything_that_changes() -> None:
    first, config = small_learner()
    images = make_images(8, 80)
    run_steps(first, config, images, 2)
    second, _ = small_learner()
    second.load_state_dict({key: value.clone() for key, value in first.state_dict().items()})
    assert run_steps(first, config, images, 2) == run_steps(second, config, images, 2)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


def test_export_says_which_encoder() -> None:
    student, config = small_learner(export="student")
    run_steps(student, config, make_images(4, 64), 2)
    teacher, config = small_learner(export="teacher")
    run_steps(teacher, config, make_images(4, 64), 2)
    key = "blocks.0.mlp.fc1.weight"
    assert torch.equal(student.export().backbone[key], student.student["backbone"].model.state_dict()[key])
    assert torch.equal(teacher.export().backbone[key], teacher.teacher["backbone"].model.state_dict()[key])
    assert not torch.equal(student.export().backbone[key], teacher.export().backbone[key])
