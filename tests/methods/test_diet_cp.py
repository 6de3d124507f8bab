from __future__ import annotations

import math

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.methods.diet_cp.config import DietCP
from lowdata_cpt.methods.diet_cp.learner import DietCPLearner
from lowdata_cpt.training.learner import Progress
from lowdata_cpt.vision.images import normalise
from tests.methods.harness import BACKBONES, make_backbone, make_context, make_images, make_learner, run_steps


def learner_for(name: str, n_images: int = 8, **config: object) -> DietCPLearner:
    backbone = make_backbone(*BACKBONES[name])
    learner = make_learner(DietCP.model_validate({"method": "diet_cp"} | config), backbone, n_images=n_images)
    assert isinstance(learner, DietCPLearner)
    return learner


def trained(learner: DietCPLearner) -> set[str]:
    return {name for name, parameter in learner.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("name", BACKBONES)
def test_trains_exactly_the_head_and_the_last_two_blocks(name: str) -> None:
    learner = learner_for(name)
    depth = learner.backbone.depth
    blocks = tuple(f"backbone.model.blocks.{i}." for i in (depth - 2, depth - 1))
    expected = {n for n, _ in learner.named_parameters() if n.startswith(blocks) or n == "head.weight"}
    assert trained(learner) == expected


def test_vit_s_trains_3_55_million_backbone_parameters() -> None:
    learner = learner_for("registers")
    count = sum(p.numel() for p in learner.backbone.parameters() if p.requires_grad)
    assert count == pytest.approx(3.55e6, rel=0.002)


def test_block_selection_holds_without_a_head_only_phase() -> None:
    """A published peer trains everything when its frozen phase is set to zero."""
    assert trained(learner_for("plain", head_only=0.0)) == trained(learner_for("plain"))


def test_head_only_phase_is_five_percent_of_the_epochs() -> None:
    learner = learner_for("plain")
    frozen = [learner.head_only(Progress(step=e, steps=150, epoch=e, epochs=150)) for e in range(150)]
    assert sum(frozen) == int(0.05 * 150) == 7
    assert frozen[6]
    assert not frozen[7]


def test_no_gradient_reaches_the_backbone_in_the_head_only_phase() -> None:
    learner = learner_for("plain", head_only=0.5)
    views = learner.views(make_images(4, 80), torch.Generator().manual_seed(0))
    loss, _ = learner.step(views, torch.arange(4), Progress(0, 10, 0, 10))
    loss.backward()
    assert learner.head.weight.grad is not None
    assert all(p.grad is None for p in learner.backbone.parameters())
    loss, _ = learner.step(views, torch.arange(4), Progress(9, 10, 9, 10))
    loss.backward()
    assert all(p.grad is not None for p in learner.backbone.parameters() if p.requires_grad)


@pytest.mark.parametrize("n_images", [100, 1000])
def test_loss_at_initialisation_is_about_ln_n(n_images: int) -> None:
    learner = learner_for("plain", n_images)
    views = learner.views(make_images(8, 80), torch.Generator().manual_seed(0))
    loss, _ = learner.step(views, torch.arange(8), Progress(0, 10, 0, 10))
    assert float(loss) == pytest.approx(math.log(n_images), rel=0.02)


def test_loss_is_smoothed_cross_entropy_of_the_normalised_feature() -> None:
    learner = learner_for("plain", 5)
    views = learner.views(make_images(3, 80), torch.Generator().manual_seed(0))
    index = torch.tensor([4, 0, 2])
    loss, _ = learner.step(views, index, Progress(9, 10, 9, 10))
    with torch.no_grad():
        feature = learner.backbone(views["x"]).cls
        log_p = F.log_softmax((feature / feature.norm(dim=1, keepdim=True)) @ learner.head.weight.T, dim=1)
    target = torch.full((3, 5), 0.2 / 5)
    target[torch.arange(3), index] += 0.8
    assert float(loss) == pytest.approx(float(-(target * log_p).sum(1).mean()), rel=1e-5)
    assert learner.head.bias is None


def test_view_statistics_are_the_domains_or_the_pretraining_ones() -> None:
    own, pretraining = learner_for("plain"), learner_for("plain", normalisation="pretraining")
    assert own.mean == (0.5, 0.5, 0.5)
    assert pretraining.mean == pretraining.backbone.mean
    views = own.views(torch.full((4, 3, 80, 80), 0.75), torch.Generator().manual_seed(0))["x"]
    assert views.shape == (4, 3, 64, 64)
    assert float(views.median()) == pytest.approx((0.75 - 0.5) / 0.25, abs=1e-4)


@pytest.mark.parametrize("name", BACKBONES)
def test_three_steps_then_timm_opens_the_export(name: str, tmp_path) -> None:
    config = DietCP(head_only=0.0)
    learner = learner_for(name, head_only=0.0)
    run_steps(learner, config, make_images(8, 80), 3)
    save_file(learner.export().backbone, tmp_path / "model.safetensors")
    timm_name, size = BACKBONES[name]
    opened = timm.create_model(
        timm_name, num_classes=0, dynamic_img_size=True, checkpoint_path=str(tmp_path / "model.safetensors")
    ).eval()
    images = make_images(2, size)
    with torch.no_grad():
        learner.eval()
        # Opened, it takes images normalised as in pretraining, and sees them as it did in training.
        found = opened.forward_features(learner.backbone.normalise(images))[:, 0]
        seen = learner.backbone(normalise(images, learner.mean, learner.std)).cls
        torch.testing.assert_close(found, seen, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(found, learner.backbone(learner.backbone.normalise(images)).cls, atol=1e-2)


def test_export_under_the_pretraining_normalisation_is_the_backbone_itself() -> None:
    learner = learner_for("plain", normalisation="pretraining")
    state = learner.backbone.timm_state()
    assert all(torch.equal(value, state[key]) for key, value in learner.export().backbone.items())


def test_a_patch_embedding_without_bias_is_refused() -> None:
    learner = learner_for("plain")
    learner.backbone.model.patch_embed.proj.bias = None
    with pytest.raises(UserError, match="`normalisation: pretraining` for diet_cp"):
        learner.export()


def test_context_is_read_not_assumed() -> None:
    backbone = make_backbone("vit_tiny_patch16_224", 64)
    context = make_context(backbone, 13, 10, 4)
    learner = DietCPLearner(backbone, DietCP(), context)
    assert learner.head.weight.shape == (13, 192)
