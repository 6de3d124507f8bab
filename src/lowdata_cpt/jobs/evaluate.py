"""Stages that evaluate a model: one feature pass, then probes that read it. Torch is imported where it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lowdata_cpt.core.provenance import write_sidecar
from lowdata_cpt.jobs.inputs import open_store
from lowdata_cpt.probes.config import DepthConfig, FeaturesConfig, LinearConfig, SegmentationConfig
from lowdata_cpt.probes.run import run_probe

CONFIGS: dict[str, type[LinearConfig] | type[SegmentationConfig] | type[DepthConfig]] = {
    "linear": LinearConfig,
    "segmentation": SegmentationConfig,
    "depth": DepthConfig,
}


def features(config: dict[str, Any], *, model: Path, manifest: Path, target: Path, device: str) -> None:
    """Pass every labelled image through a frozen model once. `config` has image_size, features and precision."""
    from lowdata_cpt.backbones import weights
    from lowdata_cpt.core.device import pick_device
    from lowdata_cpt.probes.features import extract

    vit = weights.open_export(model, int(config["image_size"]))
    settings = FeaturesConfig.model_validate(config["features"])
    where = pick_device(device)
    extract(vit.to(where), open_store(manifest), settings, where, target, seed=0, precision=config["precision"])


def probe(
    task: str, config: dict[str, Any], *, features_file: Path, manifest: Path, seed: int, target: Path, device: str
) -> None:
    """Train one probe on cached features and write its scores. `config` has the keys `probe` and `examples`."""
    settings = CONFIGS[task].model_validate(config["probe"])
    where = None
    if task != "linear":
        from lowdata_cpt.core.device import pick_device

        where = pick_device(device)
    run_probe(
        task,
        features_file,
        open_store(manifest),
        settings,
        seed=seed,
        device=where,
        out=target,
        examples=int(config["examples"]),
    )
    write_sidecar(target, inputs=[manifest, features_file], config=config | {"seed": seed})
