from __future__ import annotations

import numpy as np
import pytest
import torch

from lowdata_cpt.methods.normalisation import fold
from lowdata_cpt.training.augment import normalise
from lowdata_cpt.training.prepare import channel_statistics
from tests.methods.harness import BACKBONES, make_backbone, make_images


def test_statistics_are_those_of_all_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 200, (5, 9, 7, 3), dtype=np.uint8)
    mean, std = channel_statistics(images)
    pixels = images.reshape(-1, 3) / 255
    assert mean == pytest.approx(pixels.mean(0).tolist())
    assert std == pytest.approx(pixels.std(0).tolist())


@pytest.mark.parametrize("name", BACKBONES)
def test_folded_weights_see_the_same_image(name: str) -> None:
    backbone = make_backbone(*BACKBONES[name])
    own = ((0.3, 0.5, 0.6), (0.1, 0.2, 0.3))
    images = make_images(2, backbone.image_size)
    with torch.no_grad():
        seen = backbone(normalise(images, *own)).cls
        backbone.model.load_state_dict(fold(backbone.timm_state(), own, (backbone.mean, backbone.std)))
        torch.testing.assert_close(backbone(backbone.normalise(images)).cls, seen, atol=1e-4, rtol=1e-4)
