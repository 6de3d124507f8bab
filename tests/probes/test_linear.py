"""kNN and the linear probe: selection, honesty about classes, determinism, speed of start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lowdata_cpt.probes.run import run_probe
from sklearn.linear_model import LogisticRegression

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.probes import linear
from lowdata_cpt.probes.config import LinearConfig
from tests.probes import synthetic

CONFIG = LinearConfig(c_grid=(0.1, 10.0))


def test_separable_toy_reaches_one(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path)
    test = linear.probe(features, store, CONFIG)["metrics"]["test"]
    assert set(test) == {"knn_accuracy", "knn_macro_f1", "linear_accuracy", "linear_macro_f1", "linear_auc"}
    assert min(test.values()) == 1.0


def test_shuffled_features_are_at_chance(tmp_path: Path) -> None:
    counts = {"train": 90, "val": 60, "test": 90}
    store, features = synthetic.linear_toy(tmp_path, noise=100.0, counts=counts)
    test = linear.probe(features, store, CONFIG)["metrics"]["test"]
    assert test["linear_accuracy"] < 0.55
    assert abs(test["linear_auc"] - 0.5) < 0.2


def test_k_is_at_most_the_number_of_train_images(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path, counts={"train": 6, "val": 6, "test": 6})
    assert linear.probe(features, store, CONFIG)["selected"]["k"] == 6


def test_neighbours_are_found_by_angle_and_weighted_by_distance() -> None:
    x = linear.normalise(np.array([[10.0, 0.1], [0.0, 1.0], [0.1, 1.0]]))
    knn = linear.fit_knn(x, np.array([0, 1, 1]), LinearConfig(k=3))
    query = linear.normalise(np.array([[0.5, 0.02]]))
    assert knn.predict(query) == [0], "three votes: the one near neighbour outweighs two distant ones"


def test_c_is_chosen_on_validation_only(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path, noise=0.6, counts={"train": 30, "val": 30, "test": 30})
    before = linear.probe(features, store, CONFIG)
    labels = np.load(store.root / "test.labels.npy")
    np.save(store.root / "test.labels.npy", np.random.default_rng(0).permutation(labels))
    after = linear.probe(features, store, CONFIG)
    assert after["selected"] == before["selected"]
    assert after["metrics"]["val"] == before["metrics"]["val"]
    assert after["metrics"]["test"] != before["metrics"]["test"]


def test_the_chosen_c_is_the_best_on_validation_and_is_fitted_on_train(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path, noise=0.6, counts={"train": 30, "val": 30, "test": 30})
    result = linear.probe(features, store, LinearConfig(c_grid=(0.001, 1.0, 100.0)))
    scores = result["selected"]["val_macro_f1"]
    assert scores[repr(result["selected"]["c"])] == max(scores.values())
    assert result["metrics"]["val"]["linear_macro_f1"] == max(scores.values())
    x = {s: linear.normalise(linear.feature_file.read(features, store, s, "cls")) for s in ("train", "test")}
    x = linear.centre_and_scale(x)
    fresh = LogisticRegression(C=result["selected"]["c"], max_iter=1000).fit(x["train"], store.labels("train"))
    assert fresh.score(x["test"], store.labels("test")) == pytest.approx(result["metrics"]["test"]["linear_accuracy"])


def test_features_are_centred_and_scaled_by_the_train_set() -> None:
    scaled = linear.centre_and_scale({"train": np.array([[1.0, 0], [3, 0]]), "test": np.array([[7.0, 0]])})
    assert scaled["train"].tolist() == [[-1, 0], [1, 0]]
    assert scaled["test"].tolist() == [[5, 0]]


def test_ties_go_to_the_strongest_regularisation() -> None:
    x, y = np.array([[-1.0], [-1], [1], [1]]), np.array([0, 0, 1, 1])
    assert linear.fit_linear(x, y, x, y, LinearConfig(c_grid=(0.1, 10.0)))[1]["c"] == 0.1


def test_the_test_split_is_evaluated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, features = synthetic.linear_toy(tmp_path, counts={"train": 24, "val": 12, "test": 15})
    seen: list[int] = []
    original = linear.evaluate
    monkeypatch.setattr(linear, "evaluate", lambda *args: seen.append(len(args[2])) or original(*args))
    linear.probe(features, store, CONFIG)
    assert seen == [12, 15]


def test_classes_missing_from_splits_are_named_and_counted(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path, classes=4)
    keep = np.load(store.root / "train.labels.npy")
    keep[keep == 3] = 0
    np.save(store.root / "train.labels.npy", keep)
    result = linear.probe(features, store, CONFIG)
    assert result["counts"]["classes_missing"] == {"train": ["class3"], "val": [], "test": []}
    assert result["metrics"]["test"]["linear_accuracy"] <= 0.75
    assert result["metrics"]["test"]["linear_auc"] <= 0.875 + 1e-9, "the unseen class has an AUC of one half"


def test_a_test_split_of_one_class_has_no_auc(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path)
    np.save(store.root / "test.labels.npy", np.zeros(12, dtype=np.int64))
    result = linear.probe(features, store, CONFIG)
    assert "linear_auc" not in result["metrics"]["test"]
    assert "linear_auc" in result["metrics"]["val"]


def test_a_train_split_of_one_class_is_an_error(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path)
    np.save(store.root / "train.labels.npy", np.zeros(24, dtype=np.int64))
    with pytest.raises(UserError, match="one class only"):
        linear.probe(features, store, CONFIG)


def test_labels_beyond_the_named_classes_are_an_error(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path)
    np.save(store.root / "val.labels.npy", np.full(12, 7, dtype=np.int64))
    with pytest.raises(UserError, match="'val' go beyond the 3 named"):
        linear.probe(features, store, CONFIG)


def test_the_augmented_bank_replaces_only_the_train_features(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path)
    config = LinearConfig(c_grid=(1.0,), bank="augmented")
    with pytest.raises(UserError, match="augmented_bank: true"):
        linear.probe(features, store, config)
    tensors = {f"{s}/cls": linear.feature_file.read(features, store, s, "cls") for s in ("train", "val", "test")}
    rng = np.random.default_rng(0)
    tensors["train/cls_augmented"] = rng.normal(size=tensors["train/cls"].shape).astype(np.float32)
    synthetic.write_features(features, tensors)
    assert linear.probe(features, store, config)["metrics"]["test"]["knn_accuracy"] < 0.9
    assert linear.probe(features, store, CONFIG)["metrics"]["test"]["knn_accuracy"] == 1.0


def test_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path, noise=0.6)
    for name in ("a", "b"):
        run_probe("linear", features, store, CONFIG, seed=3, device=None, out=tmp_path / f"{name}.json", examples=2)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert not (tmp_path / "a.npy").exists()


def test_the_linear_probe_does_not_import_torch(tmp_path: Path) -> None:
    synthetic.linear_toy(tmp_path)
    code = f"""
import sys
from pathlib import Path
from lowdata_cpt.data.store import Store
from lowdata_cpt.probes.config import LinearConfig
from lowdata_cpt.probes.run import run_probe
root = Path({str(tmp_path)!r})
run_probe("linear", root / "features.safetensors", Store(root / "store"), LinearConfig(), seed=0, device=None,
          out=root / "out.json", examples=0)
assert "torch" not in sys.modules, "torch was imported"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_features_that_differ_by_a_millionth_are_no_harder() -> None:
    rng = np.random.default_rng(0)
    centre = rng.standard_normal(16)
    labels = np.arange(60) % 3
    spread = 0.2 * np.eye(16)[labels] + 0.02 * rng.standard_normal((60, 16))
    scores = []
    for size in (1.0, 1e-6):
        x = {split: linear.normalise(centre + size * spread) for split in ("train", "val")}
        z = linear.centre_and_scale(x)
        model, _ = linear.fit_linear(z["train"], labels, z["val"], labels, LinearConfig())
        scores.append((model.predict(z["val"]) == labels).mean())
    assert scores == [1.0, 1.0]
