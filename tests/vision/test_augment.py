"""Colours and crops by hand."""

from __future__ import annotations

import pytest
import torch

from lowdata_cpt.vision import augment


def test_a_third_of_a_turn_of_hue_rotates_the_channels() -> None:
    x = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    turned = augment._shift_hue(x, torch.full((4, 1, 1), 1 / 3))
    torch.testing.assert_close(turned, x[:, [2, 0, 1]], atol=1e-5, rtol=0)


def test_solarize_and_grey_by_hand() -> None:
    x = torch.tensor([0.25, 0.5, 1.0]).view(1, 3, 1, 1)
    assert augment.random_solarize(x, torch.Generator(), 1.0).flatten().tolist() == [0.25, 0.5, 0.0]
    grey = augment.random_grayscale(x, torch.Generator(), 1.0)
    assert grey.flatten().tolist() == pytest.approx([0.299 * 0.25 + 0.587 * 0.5 + 0.114] * 3)


@pytest.mark.parametrize("kind", ["brightness", "saturation", "contrast"])
def test_color_jitter_draws_factors_around_one(kind: str) -> None:
    """With strength .5 a factor lies in [.5, 1.5): of the image against black, its grey, or its mean grey."""
    images = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).repeat(400, 1, 2, 2)
    images[..., 0] /= 2  # the left column is darker, or contrast would have nothing to change
    strengths = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0) | {kind: 0.5}
    out = augment.color_jitter(images, torch.Generator().manual_seed(0), p=1.0, **strengths)
    grey = 0.299 * images[:, :1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:]
    other = {"brightness": torch.zeros_like(grey), "saturation": grey, "contrast": grey.mean((-2, -1), keepdim=True)}
    factors = ((out - other[kind]) / (images - other[kind]))[..., 0, 1]
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors), atol=1e-4, rtol=0)
    assert 0.5 - 1e-4 <= factors.min() < 0.52
    assert 1.48 < factors.max() < 1.5 + 1e-4


def test_about_a_share_p_of_the_images_is_changed() -> None:
    images = torch.rand(1000, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    for out in (
        augment.random_grayscale(images, torch.Generator().manual_seed(0), 0.2),
        augment.random_solarize(images, torch.Generator().manual_seed(0), 0.2, threshold=0.0),
    ):
        changed = (out != images).flatten(1).any(1).float().mean().item()
        assert changed == pytest.approx(0.2, abs=0.04)
