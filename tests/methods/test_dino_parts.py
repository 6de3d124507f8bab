from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lowdata_cpt.methods.dino import views as dino_views
from lowdata_cpt.methods.dino.loss import Centre, dino_loss, soft_cross_entropy, teacher_temperature
from lowdata_cpt.methods.dino.modules import DINOHead, cosine, ema_update
from lowdata_cpt.methods.dino.views import local_crop_size, multi_crop
from tests.methods.harness import make_images


def test_head_gives_cosines_of_a_unit_bottleneck_with_unit_prototypes() -> None:
    head = DINOHead(8, 32, hidden=16, bottleneck=4)
    logits = head(torch.randn(2, 3, 8))
    assert logits.shape == (2, 3, 32)
    assert logits.abs().max() <= 1 + 1e-5
    assert sum(isinstance(module, nn.Linear) for module in head.mlp) == 3
    with torch.no_grad():
        head.last.weight.mul_(7)
    x = torch.randn(5, 8)
    expected = F.normalize(head.mlp(x), dim=-1) @ F.normalize(head.last.weight, dim=1).T
    torch.testing.assert_close(head(x), expected)


def test_frozen_prototypes_get_no_gradient_but_the_mlp_does() -> None:
    head = DINOHead(8, 32, hidden=16, bottleneck=4)
    head(torch.randn(5, 8), freeze_last=True).square().sum().backward()
    assert head.last.weight.grad is None
    assert head.mlp[0].weight.grad.abs().sum() > 0


def test_loss_is_the_mean_over_pairs_of_different_views() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 3, 7), torch.randn(2, 3, 7).softmax(-1)
    pairs = [soft_cross_entropy(student[s], teacher[t], 0.1).mean() for t in range(2) for s in range(5) if s != t]
    torch.testing.assert_close(dino_loss(student, teacher, 0.1), torch.stack(pairs).mean())
    every = [soft_cross_entropy(student[s], teacher[t], 0.1).mean() for t in range(2) for s in range(5)]
    torch.testing.assert_close(dino_loss(student, teacher, 0.1, same_view=True), torch.stack(every).mean())


def test_cross_entropy_is_torchs() -> None:
    logits, probs = torch.randn(6, 9), torch.randn(6, 9).softmax(-1)
    torch.testing.assert_close(
        soft_cross_entropy(logits, probs, 0.5), F.cross_entropy(logits / 0.5, probs, reduction="none")
    )


def test_centre_follows_the_mean_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    centre, logits = Centre(4, momentum=0.9), torch.randn(2, 3, 4)
    centre.update(logits)
    torch.testing.assert_close(centre.centre, 0.1 * logits.mean((0, 1)))
    assert set(centre.state_dict()) == {"centre", "started"}
    probs = centre.probabilities(logits, 0.04)
    torch.testing.assert_close(probs, ((logits - centre.centre) / 0.04).softmax(-1))

    elsewhere = torch.randn(10, 4)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(
        torch.distributed,
        "all_reduce",
        lambda total: total.add_(torch.cat([elsewhere.sum(0), torch.tensor([10.0])])),
    )
    fresh = Centre(4, momentum=0.9)
    fresh.update(logits)
    together = torch.cat([logits.flatten(0, 1), elsewhere])
    torch.testing.assert_close(fresh.centre, 0.1 * together.mean(0))


def test_centre_may_start_at_the_first_batch() -> None:
    logits, later = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    centre, zero = Centre(4, start="first_batch"), Centre(4)
    for one in (centre, zero):
        one.begin(logits)
        one.begin(later)
    torch.testing.assert_close(centre.centre, logits.mean((0, 1)))
    assert torch.equal(zero.centre, torch.zeros(4))
    resumed = Centre(4, start="first_batch")
    resumed.load_state_dict(centre.state_dict())
    resumed.begin(later)
    assert torch.equal(resumed.centre, centre.centre)


def test_centre_of_no_logits_stays() -> None:
    centre = Centre(4)
    centre.update(torch.zeros(0, 4))
    assert torch.equal(centre.centre, torch.zeros(4))


def test_ema_moves_parameters_and_copies_buffers() -> None:
    teacher, student = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    with torch.no_grad():
        student.weight.fill_(3.0)
        student.running_mean.fill_(5.0)
    ema_update(teacher, student, 0.75)
    torch.testing.assert_close(teacher.weight, torch.full((3,), 1.5))
    assert torch.equal(teacher.running_mean, student.running_mean)


def test_schedules() -> None:
    assert cosine(0.996, 1.0, 0.0) == pytest.approx(0.996)
    assert cosine(0.996, 1.0, 0.5) == pytest.approx(0.998)
    assert cosine(0.996, 1.0, 1.0) == pytest.approx(1.0)
    assert [teacher_temperature(0.04, 0.07, 0.1, at) for at in (0, 0.05, 0.1, 0.9)] == pytest.approx(
        [0.04, 0.055, 0.07, 0.07]
    )
    assert teacher_temperature(0.04, 0.07, 0.0, 0.0) == 0.07


@pytest.mark.parametrize(
    ("image", "patch", "side"), [(224, 14, 98), (224, 16, 96), (112, 14, 42), (56, 14, 28), (32, 16, 16), (16, 16, 16)]
)
def test_local_crops_are_whole_patches(image: int, patch: int, side: int) -> None:
    assert local_crop_size(image, patch) == side


def test_multi_crop_tells_where_each_view_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without colours, a view of a picture of coordinates shows the box and flip that are reported."""
    coloured: list[tuple[float, float]] = []
    monkeypatch.setattr(dino_views, "dino_colours", lambda x, _, *strength: coloured.append(strength) or x)
    y, x = torch.meshgrid(torch.arange(80) + 0.5, torch.arange(100) + 0.5, indexing="ij")
    image = torch.stack([y / 80, x / 100, torch.zeros_like(x)]).expand(6, 3, 80, 100)
    crops = multi_crop(image, torch.Generator().manual_seed(0), 56, 28, 3)
    assert [tuple(view.shape) for view in crops.globals] == [(6, 3, 56, 56)] * 2
    assert [tuple(view.shape) for view in crops.locals] == [(6, 3, 28, 28)] * 3
    assert crops.flips.any()
    assert not crops.flips.all()
    for view, boxes, flips in zip(crops.globals + crops.locals, crops.boxes, crops.flips, strict=True):
        top, left, tall, wide = boxes.unbind(1)
        middle = view.mean((-2, -1))
        torch.testing.assert_close(middle[:, 0] * 80, top + tall / 2, atol=0.6, rtol=0)
        torch.testing.assert_close(middle[:, 1] * 100, left + wide / 2, atol=0.6, rtol=0)
        rising = view[:, 1, 0, -1] > view[:, 1, 0, 0]
        assert torch.equal(rising, ~flips)
    assert coloured == [(1.0, 0.0), (0.1, 0.2), *[(0.5, 0.0)] * 3], "blur and solarize of each view"
    areas = crops.boxes[..., 2] * crops.boxes[..., 3] / 8000
    assert areas[:2].min() > 0.23
    assert areas[:2].max() > 0.5
    assert areas[2:].min() > 0.03
    assert areas[2:].max() < 0.27


def test_multi_crop_repeats_with_its_generator_and_stays_in_range() -> None:
    images = make_images(4, 80)
    first, again, other = (multi_crop(images, torch.Generator().manual_seed(s), 56, 28, 1) for s in (1, 1, 2))
    assert torch.equal(first.globals[1], again.globals[1])
    assert not torch.equal(first.globals[1], other.globals[1])
    assert all(view.min() >= 0 and view.max() <= 1 for view in first.globals + first.locals)
