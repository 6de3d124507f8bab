"""Probe settings: unknown keys and unusable grids are errors."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from lowdata_cpt.probes.config import DepthConfig, FeaturesConfig, LinearConfig, SegmentationConfig


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (LinearConfig, {"c_grid": []}),
        (LinearConfig, {"c_grid": [10, 1]}),
        (LinearConfig, {"c_grid": [0, 1]}),
        (LinearConfig, {"bank": "both"}),
        (SegmentationConfig, {"lr_grid": [1e-3, 1e-3]}),
        (SegmentationConfig, {"lr_grid": [float("inf")]}),
        (DepthConfig, {"warmup": 1.0}),
        (DepthConfig, {"train_stride": 0}),
        (FeaturesConfig, {"batchsize": 4}),
    ],
)
def test_unusable_settings_are_refused(model: Any, values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model(**values)


def test_defaults_are_the_papers_recipe() -> None:
    config = SegmentationConfig()
    assert (config.steps, config.batch_size, config.weight_decay, config.clip) == (20_000, 8, 0.05, 1.0)
    assert config.warmup * config.steps == 1000
    assert config.train_stride == 1
    assert LinearConfig().k == 20
