from __future__ import annotations

import pytest
import timm
import torch

from lowdata_cpt.methods.mae.config import MAE, decoder_shape
from lowdata_cpt.methods.mae.learner import MAELearner
from lowdata_cpt.methods.mae.loss import pixel_target
from lowdata_cpt.training.learner import Progress
from tests.methods.harness import BACKBONES, make_backbone, make_images, make_learner, run_steps

PROGRESS = Progress(0, 10, 0, 5)
SMALL = MAE(optimiser={"lr": 1e-4})


def mae_learner(kind: str = "plain", config: MAE = SMALL) -> MAELearner:
    learner = make_learner(config, make_backbone(*BACKBONES[kind]))
    assert isinstance(learner, MAELearner)
    return learner


@pytest.mark.parametrize("kind", BACKBONES)
def test_three_steps_and_export(kind: str) -> None:
    name, size = BACKBONES[kind]
    learner = mae_learner(kind)
    before = {key: value.clone() for key, value in learner.backbone.model.state_dict().items()}
    losses = run_steps(learner, SMALL, make_images(8, size + 10), 3)
    assert all(torch.isfinite(torch.tensor(losses)))
    fresh = timm.create_model(name, num_classes=0, dynamic_img_size=True)
    fresh.load_state_dict(learner.export().backbone)
    changed = {key for key, value in fresh.state_dict().items() if not torch.equal(value, before[key])}
    assert any(key.startswith("blocks.") for key in changed)
    assert "pos_embed" not in changed
    x = torch.randn(2, 3, size, size)
    learner.eval()
    with torch.no_grad():
        expected = learner.backbone(x)
        tokens = fresh.eval().forward_features(x)
    torch.testing.assert_close(tokens[:, learner.backbone.num_prefix_tokens :], expected.patches, atol=1e-5, rtol=0)


def test_every_trained_parameter_gets_a_gradient() -> None:
    for kind in ("registers", "rope"):
        learner = mae_learner(kind)
        views = learner.views(make_images(4, 70), torch.Generator().manual_seed(0))
        learner.step(views, torch.arange(4), PROGRESS)[0].backward()
        for name, parameter in learner.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, name
                assert parameter.grad.abs().sum() > 0, name


def test_target_is_normalised_per_patch_with_the_unbiased_variance() -> None:
    images = make_images(2, 64) * 3 + 1
    target = pixel_target(images, 16)
    assert target.shape == (2, 16, 768)
    patch = images[1, :, 16:32, 32:48].flatten()  # row 1, column 2 of the 4 x 4 grid
    expected = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
    torch.testing.assert_close(target[1, 6], expected, atol=1e-4, rtol=1e-4)


def test_loss_is_on_masked_patches_only(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = mae_learner()
    views = learner.views(make_images(4, 64), torch.Generator().manual_seed(0))
    assert views["visible"].shape == (4, 4)
    assert views["masked"].shape == (4, 12)
    prediction = torch.randn(4, 16, 768)

    def loss_with(where: torch.Tensor) -> torch.Tensor:
        changed = prediction.clone()
        changed[torch.arange(4)[:, None], where] += 5
        monkeypatch.setattr(learner, "reconstruct", lambda *_: changed)
        return learner.step(views, torch.arange(4), PROGRESS)[0]

    monkeypatch.setattr(learner, "reconstruct", lambda *_: prediction)
    loss = learner.step(views, torch.arange(4), PROGRESS)[0]
    assert torch.equal(loss_with(views["visible"]), loss)
    assert not torch.equal(loss_with(views["masked"][:, :1]), loss)


def test_reconstruction_sees_visible_patches_only() -> None:
    learner = mae_learner().eval()
    views = learner.views(make_images(2, 64), torch.Generator().manual_seed(0))
    x, hidden = views["x"].clone(), int(views["masked"][0, 0])
    row, column = divmod(hidden, 4)
    x[0, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 9
    with torch.no_grad():
        clean = learner.reconstruct(views["x"], views["visible"])
        assert torch.equal(learner.reconstruct(x, views["visible"]), clean)


def test_loss_falls_on_a_small_set() -> None:
    config = MAE(optimiser={"lr": 1e-3})
    losses = run_steps(mae_learner("plain", config), config, make_images(4, 64), 15)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("width", "expected"), [(192, (128, 4)), (384, (256, 8)), (768, (512, 16)), (1024, (768, 16)), (1280, (960, 16))]
)
def test_decoder_scales_with_the_backbone(width: int, expected: tuple[int, int]) -> None:
    assert decoder_shape(width, None, None) == expected
