"""Probe settings: unknown keys and unusable grids are errors."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from lowdata_cpt.probes import depth, linear, segmentation
from lowdata_cpt.probes.config import FeaturesConfig


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (linear.Config, {"c_grid": []}),
        (linear.Config, {"c_grid": [10, 1]}),
        (linear.Config, {"c_grid": [0, 1]}),
        (linear.Config, {"bank": "both"}),
        (segmentation.Config, {"lr_grid": [1e-3, 1e-3]}),
        (segmentation.Config, {"lr_grid": [float("inf")]}),
        (depth.Config, {"warmup": 1.0}),
        (depth.Config, {"train_stride": 0}),
        (depth.Config, {"probe_seeds": 0}),
        (FeaturesConfig, {"batchsize": 4}),
    ],
)
def test_unusable_settings_are_refused(model: Any, values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model(**values)


def test_defaults_are_the_papers_recipe() -> None:
    config = segmentation.Config()
    assert (config.steps, config.batch_size, config.weight_decay, config.clip) == (20_000, 8, 0.05, 1.0)
    assert config.warmup * config.steps == 1000
    assert (config.train_stride, config.probe_seeds) == (1, 1)
    assert linear.Config().k == 20
