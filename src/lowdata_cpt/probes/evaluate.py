"""Evaluate one checkpoint: one feature pass, then every probe that the domain's labels allow."""

from __future__ import annotations

from typing import Any

import torch

from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.data.store import Store
from lowdata_cpt.probes.config import FeaturesConfig
from lowdata_cpt.probes.features import SharedBlocks, extract
from lowdata_cpt.probes.registry import PROBES
from lowdata_cpt.probes.result import ProbeResult


def evaluate(
    vit: ViT,
    store: Store,
    settings: dict[str, Any],
    *,
    seed: int,
    device: torch.device,
    precision: str,
    drawn: frozenset[str] = frozenset(),
    shared: SharedBlocks | None = None,
) -> dict[str, ProbeResult]:
    """Evaluate a frozen backbone on a domain.

    Args:
        vit: the backbone, at the size of its probe images.
        store: the domain.
        settings: plain values of `features`, `examples` and of each probe to run, by name.
        seed: of the heads.
        device: where features and heads are computed.
        precision: fp32 or bf16, of the feature pass.
        drawn: sha256 of the n unlabelled images, for DIET-CP's own bank.
        shared: see `features.extract`.

    Returns:
        What each probe found, by name.

    Raises:
        UserError: labels cannot be used, or features are not finite.
    """
    features = extract(
        vit,
        store,
        FeaturesConfig.model_validate(settings["features"]),
        device,
        precision=precision,
        augmented=settings.get("linear", {}).get("bank") == "augmented",
        shared=shared,
    )
    found: dict[str, ProbeResult] = {}
    for name, module in PROBES.items():
        if name in settings:
            config = module.Config.model_validate(settings[name])
            found[name] = module.run(
                features, store, config, seed=seed, device=device, examples=settings["examples"], drawn=drawn
            )
    return found
