from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lowdata_cpt.backbones import weights
from lowdata_cpt.backbones.normalisation import fold
from lowdata_cpt.core.io import read_json, sha256_file, write_json
from lowdata_cpt.data.store import Store
from lowdata_cpt.methods.untrained import BaseDomainNorm
from lowdata_cpt.training.prepare import feedback_of
from lowdata_cpt.vision.images import channel_statistics, normalise
from tests.methods.harness import BACKBONES, make_backbone, make_images
from tests.probes import synthetic


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


@torch.no_grad()
def test_base_domain_norm_sees_the_pool_normalised_by_itself(tmp_path: Path) -> None:
    vit, x = make_backbone("test_vit", 32).eval(), make_images(2, 32)
    pool = np.zeros((4, 32, 32, 3), np.uint8)
    pool[0] = 255  # mean .25, standard deviation .4330127
    expected = vit(normalise(x, (0.25,) * 3, (0.4330127,) * 3)).cls
    state = BaseDomainNorm().untrained_state(vit, pool, 0)
    weights.save_export(tmp_path, "test_vit", state, {}, None)
    opened = weights.open_export(tmp_path, 32)
    torch.testing.assert_close(opened(opened.normalise(x)).cls, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_held_out_feedback_image_stops_the_run(split: str, tmp_path: Path) -> None:
    store, _ = synthetic.dense_toy(tmp_path)
    assert feedback_of(store, ()).sha256 == tuple(f"train{i}" for i in range(24))
    index = store.root / "index.csv"
    index.write_text(index.read_text().replace(",train3,", f",{split}3,"))
    meta = read_json(store.root / "meta.json")
    write_json(store.root / "meta.json", meta | {"files": meta["files"] | {"index.csv": sha256_file(index)}})
    with pytest.raises(AssertionError, match=f"a {split} image"):
        feedback_of(Store(store.root), ())
