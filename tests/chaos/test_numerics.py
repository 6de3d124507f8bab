"""Images, labels and numbers that are as bad as they can be: stopped with step and loss part, or a finite score.

Every method that trains, and every probe, at tiny size in this process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.store import Store
from lowdata_cpt.dev.scale_down import SMALLER
from lowdata_cpt.methods.base import MethodConfig
from lowdata_cpt.methods.registry import METHODS, by_name, name_of, parse
from lowdata_cpt.probes.evaluate import evaluate
from lowdata_cpt.probes.metrics import trivial_scores
from lowdata_cpt.probes.registry import PROBES
from lowdata_cpt.training.config import Training
from lowdata_cpt.training.loop import Run
from lowdata_cpt.training.prepare import prepare_run
from tests.probes.synthetic import splits, write_store

pytestmark = pytest.mark.slow
SIDE = 32
CPU = torch.device("cpu")
ENTRIES: dict[str, dict[str, Any]] = {
    **{name_of(method): {} for method in METHODS if method.learner_path},
    "v_pretraining, differences": {"method": "v_pretraining", "value_gradient": "finite_difference"},
    "v_pretraining, random feedback": {"method": "v_pretraining", "designer": "random_feedback"},
}


def method_of(entry: str, **changes: Any) -> MethodConfig:
    settings = {"method": entry} | ENTRIES[entry] | changes
    fields = by_name()[settings["method"]].model_fields
    return parse({key: value for key, value in SMALLER.items() if key in fields} | settings)


def backbone() -> ViT:
    torch.manual_seed(0)
    return ViT("test_vit", image_size=SIDE)


def pictures(count: int, value: int | None = None) -> np.ndarray:
    if value is not None:
        return np.full((count, SIDE, SIDE, 3), value, np.uint8)
    return np.random.default_rng(count).integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)


def labelled(
    folder: Path, *, count: int = 4, value: int | None = None, classes: int = 2, void: bool = False, far: bool = False
) -> Store:
    """A store of all tasks; `value`: constant images; `void`, `far`: no label of the train images counts."""
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for split in ("train", "val", "test"):
        truth = np.zeros((count, SIDE, SIDE), np.uint8)
        truth[:, :, SIDE // 2 :] = classes - 1
        bad = split == "train"
        arrays[split] = {
            "images": pictures(count, value),
            "labels": np.arange(count, dtype=np.int64) % classes,
            "segmentation": np.full_like(truth, 255) if void and bad else truth,
            "depth": np.full(truth.shape, 50.0 if far and bad else 2.0, np.float32),
        }
    names = [f"class {i}" for i in range(classes)]
    tasks = {
        "classification": {"sets": splits(), "classes": names},
        "segmentation": {"sets": splits(), "classes": names},
        "depth": {"sets": splits(), "depth_range": [0.1, 10.0]},
    }
    return write_store(folder, arrays, tasks, resolution=SIDE)


def run_of(method: MethodConfig, images: np.ndarray, folder: Path, store: Store | None = None, **training: Any) -> Run:
    length = Training.model_validate({"epochs": 2, "batch_size": 4} | training)
    store = store or labelled(folder / "store")
    return prepare_run(method, length, backbone(), images, store, 0, CPU, folder / "run", "key")


def finite(run: Run) -> bool:
    """Whether all that the run has logged and learned is finite."""
    result = run.train()
    values = [value for value in run.learner.state_dict().values() if value.is_floating_point()]
    export = run.learner.export().backbone.values()
    whole = all(bool(value.isfinite().all()) for value in (*values, *export) if value.is_floating_point())
    return whole and bool(np.isfinite(result.log["value"]).all())


@pytest.mark.parametrize("entry", ENTRIES)
def test_poor_images_train_to_finite_weights(entry: str, tmp_path: Path) -> None:
    method = method_of(entry)
    images = {
        "black": pictures(4, 0),
        "an empty channel": pictures(4) * np.array([1, 1, 0], np.uint8),
        "n = 2": pictures(2),
        "n = 1, smaller than the batch": pictures(1),
        "a last batch of one": pictures(5),
    }
    bad = [name for name, found in images.items() if not finite(run_of(method, found, tmp_path / name))]
    assert not bad


@pytest.mark.parametrize("method", [method for method in METHODS if not method.learner_path], ids=name_of)
def test_a_constant_pool_leaves_untrained_weights_finite(method: type[MethodConfig]) -> None:
    state = method().untrained_state(backbone(), pictures(2, 128), 0)
    assert all(bool(value.isfinite().all()) for value in state.values())


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if "v_pretraining" in entry])
def test_feedback_without_any_valid_label_teaches_nothing_that_is_not_finite(entry: str, tmp_path: Path) -> None:
    stores: dict[str, dict[str, Any]] = {
        "nothing counts": {"void": True, "far": True},
        "constant": {"value": 7},
        "one class": {"classes": 1},
        "two images": {"count": 2},
    }
    for name, settings in stores.items():
        store = labelled(tmp_path / name / "store", **settings)
        if name == "constant":  # copies of one image cannot be on both sides of the feedback
            store.index["sha256"] = [f"{i}" for i in range(len(store.index))]
        assert finite(run_of(method_of(entry), pictures(4), tmp_path / name, store)), name


def no_number(run: Run, at: int, where: str, value: float) -> None:
    """Make the loss, or its gradient, not finite at one step."""
    original = run.learner.step

    def step(views: Any, index: Tensor, progress: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, parts = original(views, index, progress)
        if progress.step == at and where == "loss":
            loss = loss * value
        if progress.step == at and where == "gradient":
            loss.register_hook(lambda gradient: gradient * value)
        return loss, parts

    run.learner.step = step  # type: ignore[method-assign]


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("where", "value"), [("loss", float("nan")), ("loss", float("inf")), ("gradient", float("nan"))]
)
def test_an_injected_number_stops_with_step_and_part(entry: str, where: str, value: float, tmp_path: Path) -> None:
    run = run_of(method_of(entry), pictures(4), tmp_path)
    no_number(run, 1, where, value)
    with pytest.raises(UserError, match=rf"the {where} is not finite at step 1 \(loss = .*gradient_norm = "):
        run.train()


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_rate_that_diverges_stops_with_step_and_part_or_stays_finite(entry: str, tmp_path: Path) -> None:
    """The largest rate that a study may set; what comes out finite is scored finite, or refused by name."""
    method = method_of(entry, optimiser={"lr": 10.0, "clip": None}, schedule={"warmup": 0.0, "final_lr": 10.0})
    store = labelled(tmp_path / "store")
    run = run_of(method, pictures(4), tmp_path, store, epochs=8)
    said = ""
    try:
        assert finite(run)
        vit = backbone()
        vit.model.load_state_dict(run.learner.export().backbone)
        scored(vit, store)
    except UserError as error:
        said = str(error)
    assert not said or ("not finite" in said and "\n" not in said)


SETTINGS: dict[str, Any] = {
    "features": {},
    "examples": 1,
    "linear": {"c_grid": [1.0], "max_iter": 20},
    **{name: {"steps": 2, "batch_size": 8, "lr_grid": [0.001]} for name in ("segmentation", "depth")},
}


def scored(vit: ViT, store: Store, *probes: str) -> None:
    """Evaluate; every score is finite."""
    wanted = {key: SETTINGS[key] for key in ("features", "examples", *(probes or PROBES))}
    found = evaluate(vit, store, wanted, seed=0, device=CPU, precision="fp32")
    assert found
    for name, result in found.items():
        for split, metrics in result.metrics.items():
            assert metrics, name
            assert all(np.isfinite(value) for value in metrics.values()), (name, split, metrics)


def zero(vit: ViT) -> None:
    """All weights zero: features without any length."""
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.zero_()


def huge(vit: ViT) -> None:
    """Patch tokens beyond half precision."""
    with torch.no_grad():
        vit.norm.weight.mul_(1e6)


def test_every_probe_scores_poor_data(tmp_path: Path) -> None:
    assert set(SETTINGS) == {"features", "examples", *PROBES}
    scored(backbone(), labelled(tmp_path / "constant", value=128))
    scored(backbone(), labelled(tmp_path / "two", count=2))
    scored(backbone(), labelled(tmp_path / "one class", classes=1), "segmentation", "depth")
    blind = backbone()
    zero(blind)
    scored(blind, labelled(tmp_path / "blind"))


@pytest.mark.parametrize(
    ("settings", "change", "probe", "said"),
    [
        ({"classes": 1}, None, "linear", "one class only"),
        ({"void": True}, None, "segmentation", "'train' is void everywhere"),
        ({"far": True}, None, "depth", "'train' has no pixel within"),
        ({}, huge, "segmentation", "patch tokens of set 'train' that are not finite"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    settings: dict[str, Any], change: Callable[[ViT], None] | None, probe: str, said: str, tmp_path: Path
) -> None:
    vit = backbone()
    if change:
        change(vit)
    with pytest.raises(UserError, match=said):
        scored(vit, labelled(tmp_path / "store", **settings), probe)


@pytest.mark.parametrize(("settings", "task"), [({"void": True}, "segmentation"), ({"far": True}, "depth")])
def test_a_baseline_of_no_labels_is_refused(settings: dict[str, Any], task: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no pixel of the train images has a {task} label"):
        trivial_scores(labelled(tmp_path / "store", **settings))
