"""Designer, value gradients, feedback split and heads, each alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.methods.v_pretraining import designer, value
from lowdata_cpt.methods.v_pretraining.feedback import FeedbackHeads, FeedbackPool, split_feedback
from tests.methods.v_pretraining_setup import CLASSES, IGNORE, make_feedback, small_config, small_learner


@pytest.mark.parametrize("size", [1, 2, 5, 63, 64])
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_mask_has_the_size_of_the_view(size: int, depth: int) -> None:
    torch.manual_seed(0)
    mask = designer.MaskDesigner(4, depth, 0.6)(torch.randn(2, 3, size, size)).detach()
    assert mask.shape == (2, 1, size, size)
    assert 0 <= float(mask.min()) <= float(mask.max()) <= 1


def test_paper_size_and_first_mask() -> None:
    torch.manual_seed(0)
    net = designer.MaskDesigner(16, 3, 0.4)
    assert [stage[0].out_channels for stage in net.down] == [16, 32, 64]
    assert float(net(torch.randn(4, 3, 64, 64)).detach().mean()) == pytest.approx(0.4, abs=0.12)


def test_mask_is_instance_wise() -> None:
    torch.manual_seed(0)
    net = designer.MaskDesigner(4, 3, 0.5)
    views = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(net(views)[:1], net(views[:1]), rtol=1e-5, atol=1e-6)


def test_blend_and_blur() -> None:
    views = torch.rand(2, 3, 21, 21)
    blurred = designer.blur(views, 0.1)
    one = torch.ones(2, 1, 21, 21)
    assert torch.equal(designer.blend(one, views, blurred), views)
    assert torch.equal(designer.blend(0 * one, views, blurred), blurred)
    assert float(designer.total_variation(blurred)) < 0.5 * float(designer.total_variation(views))
    scaled = designer.blur((views - 0.4) / 0.2, 0.1)
    torch.testing.assert_close(scaled, (blurred - 0.4) / 0.2, rtol=1e-4, atol=1e-5)


def test_regulariser_by_hand() -> None:
    mask = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).view(1, 1, 2, 2)
    assert float(designer.total_variation(mask)) == 1.0
    masks = torch.cat([mask, torch.ones_like(mask)])
    assert float(designer.sparsity(masks, 0.5)) == pytest.approx((0.0 + 0.25) / 2)


def test_random_mask_keeps_exactly_its_ratio() -> None:
    masks = designer.random_mask(5, 30, 0.4, 8, torch.Generator().manual_seed(0))
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert masks.sum((1, 2, 3)).tolist() == [360.0] * 5
    assert not torch.equal(masks[0], masks[1])


def toy_loss(x: torch.Tensor, t: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return -(F.softmax(t, -1) * F.log_softmax(torch.tanh(x @ weight), -1)).sum(-1).mean()


def test_value_of_a_quadratic_in_closed_form() -> None:
    # L = x·w² / 2 → g_pre = x w, V = g x w, ∂V/∂x = g w.
    weight = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([5.0], dtype=torch.float64, requires_grad=True)
    g = [torch.tensor([2.0], dtype=torch.float64)]

    def loss(x: torch.Tensor) -> torch.Tensor:
        return (x * weight.square() / 2).sum()

    exact = value.double_backward(loss, (x,), [weight], g)
    near = value.finite_difference(loss, (x,), [weight], g, 1e-3)
    for result in (exact, near):
        assert float(result.value) == pytest.approx(30.0)
        assert float(result.gradients[0]) == pytest.approx(6.0)
    assert float(exact.norm) == 15.0  # type: ignore[arg-type]
    assert weight.grad is None
    assert x.grad is None


def test_value_gradients_agree_on_a_toy() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    x, t = (torch.randn(4, n, dtype=torch.float64, requires_grad=True) for n in (6, 5))
    g = [torch.randn(6, 5, dtype=torch.float64)]
    start = weight.detach().clone()
    exact = value.double_backward(lambda x, t: toy_loss(x, t, weight), (x, t), [weight], g)
    near = value.finite_difference(lambda x, t: toy_loss(x, t, weight), (x, t), [weight], g, 1e-4)
    assert torch.equal(weight, start)
    assert float(near.value) == pytest.approx(float(exact.value), rel=1e-6)
    for one, other in zip(exact.gradients, near.gradients, strict=True):
        assert float((one - other).norm() / one.norm()) < 1e-5


def test_finite_difference_puts_parameters_back_after_an_error() -> None:
    weight = torch.randn(3, requires_grad=True)
    start = weight.detach().clone()

    def broken(x: torch.Tensor) -> torch.Tensor:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        value.finite_difference(broken, (torch.ones(3, requires_grad=True),), [weight], [torch.ones(3)], 0.1)
    assert torch.equal(weight, start)
    assert weight.requires_grad


def test_split_is_disjoint_even_with_copies() -> None:
    hashes = [f"h{i % 10}" for i in range(25)]
    parts = split_feedback(hashes, 0.8, 0.2, seed=3)
    train, meta = ({hashes[i] for i in parts[part]} for part in ("train", "meta"))  # type: ignore[index]
    assert not train & meta
    assert (len(train), len(meta)) == (8, 2)
    assert sorted(parts["train"] + parts["meta"]) == list(range(25))
    assert parts == split_feedback(hashes, 0.8, 0.2, seed=3)
    assert parts != split_feedback(hashes, 0.8, 0.2, seed=4)


def test_split_needs_two_images() -> None:
    with pytest.raises(UserError, match="at least 2"):
        split_feedback(["a", "a"], 0.8, 0.2, 0)


def test_bad_feedback_is_named() -> None:
    with pytest.raises(UserError, match="neither segmentation nor depth"):
        small_learner(feedback=make_feedback(segmentation=False, depth=False))
    feedback = make_feedback()
    assert feedback.segmentation is not None
    wrong = feedback.segmentation.copy()
    wrong[0, 5, 5] = CLASSES
    with pytest.raises(UserError, match=rf"class {CLASSES}; expected 0\.\.{CLASSES - 1} or {IGNORE}"):
        small_learner(feedback=dataclasses.replace(feedback, segmentation=wrong))
    with pytest.raises(UserError, match="segmentation\\) are 0"):
        small_learner(small_config(segmentation_weight=0.0), feedback=make_feedback(depth=False))


def test_losses_by_hand() -> None:
    feedback = make_feedback()
    pool = FeedbackPool(feedback, 32, 0.8, 0.2, 0)
    heads = FeedbackHeads(8, pool)
    for head in heads.tasks.values():
        torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(heads.tasks["segmentation"].bias)
    batch = pool.draw("train", 4, torch.Generator().manual_seed(0), torch.zeros(()))
    losses = {task: loss.detach() for task, loss in heads.losses(torch.randn(4, 16, 8), batch).items()}
    assert float(losses["segmentation"]) == pytest.approx(np.log(CLASSES), rel=1e-5)
    assert batch.depth is not None
    valid = batch.depth[batch.depth > 0]
    assert len(valid) < batch.depth.numel()
    expected = (valid - pool.median_depth()).abs().mean()
    assert float(losses["depth"]) == pytest.approx(float(expected), rel=1e-4)
    assert batch.segmentation is not None
    nothing = batch._replace(
        segmentation=torch.full_like(batch.segmentation, IGNORE), depth=torch.zeros_like(batch.depth)
    )
    assert [x.item() for x in heads.losses(torch.randn(4, 16, 8), nothing).values()] == [0.0, 0.0]


def test_labels_are_resized_without_mixing_classes() -> None:
    pool = FeedbackPool(make_feedback(size=45), 32, 0.8, 0.2, 0)
    assert pool.images.shape == (12, 3, 32, 32)
    assert pool.segmentation is not None
    assert set(pool.segmentation.unique().tolist()) <= {0, 1, 2, IGNORE}
    assert pool.depth is not None
    positive = pool.depth[pool.depth > 0]
    assert 1 <= float(positive.min()) <= float(positive.max()) <= 5
