"""kNN and the linear probe: selection, honesty about classes, determinism, speed of start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.store import Store
from lowdata_cpt.probes import linear
from lowdata_cpt.probes.result import FeatureSet
from tests.probes import synthetic

CONFIG = linear.Config(c_grid=(0.1, 10.0))


def test_separable_toy_reaches_one(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path)
    test = linear.run(features, store, CONFIG).metrics["test"]
    assert set(test) == {"knn_accuracy", "knn_macro_f1", "linear_accuracy", "linear_macro_f1", "linear_auc"}
    assert min(test.values()) == 1.0


def test_shuffled_features_are_at_chance(tmp_path: Path) -> None:
    counts = {"train": 90, "val": 60, "test": 90}
    store, features = synthetic.linear_toy(tmp_path, noise=100.0, counts=counts)
    test = linear.run(features, store, CONFIG).metrics["test"]
    assert test["linear_accuracy"] < 0.55
    assert abs(test["linear_auc"] - 0.5) < 0.2


def test_k_is_at_most_the_number_of_train_images(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path, counts={"train": 6, "val": 6, "test": 6})
    assert linear.run(features, store, CONFIG).selected["k"] == 6


def test_neighbours_are_found_by_angle_and_weighted_by_distance() -> None:
    x = linear.normalise(np.array([[10.0, 0.1], [0.0, 1.0], [0.1, 1.0]]))
    knn = linear.fit_knn(x, np.array([0, 1, 1]), linear.Config(k=3))
    query = linear.normalise(np.array([[0.5, 0.02]]))
    assert knn.predict(query) == [0], "three votes: the one near neighbour outweighs two distant ones"


def test_c_is_chosen_on_validation_only(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path, noise=0.6, counts={"train": 30, "val": 30, "test": 30})
    before = linear.run(features, store, CONFIG)
    labels = np.load(store.root / "test.labels.npy")
    synthetic.replace(store, "test.labels.npy", np.random.default_rng(0).permutation(labels))
    after = linear.run(features, store, CONFIG)
    assert after.selected == before.selected
    assert after.metrics["val"] == before.metrics["val"]
    assert after.metrics["test"] != before.metrics["test"]


def test_the_chosen_c_is_the_best_on_validation_and_is_fitted_on_train(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path, noise=0.6, counts={"train": 30, "val": 30, "test": 30})
    result = linear.run(features, store, linear.Config(c_grid=(0.001, 1.0, 100.0)))
    scores = result.selected["val_macro_f1"]
    assert scores[repr(result.selected["c"])] == max(scores.values())
    assert result.metrics["val"]["linear_macro_f1"] == max(scores.values())
    x = {s: linear.normalise(features.cls[s]) for s in ("train", "test")}
    x = linear.centre_and_scale(x)
    fresh = LogisticRegression(C=result.selected["c"], max_iter=1000).fit(x["train"], store.labels("train"))
    assert fresh.score(x["test"], store.labels("test")) == pytest.approx(result.metrics["test"]["linear_accuracy"])


def test_features_are_centred_and_scaled_by_the_train_set() -> None:
    scaled = linear.centre_and_scale({"train": np.array([[1.0, 0], [3, 0]]), "test": np.array([[7.0, 0]])})
    assert scaled["train"].tolist() == [[-1, 0], [1, 0]]
    assert scaled["test"].tolist() == [[5, 0]]


def test_ties_go_to_the_strongest_regularisation() -> None:
    x, y = np.array([[-1.0], [-1], [1], [1]]), np.array([0, 0, 1, 1])
    assert linear.fit_linear(x, y, x, y, linear.Config(c_grid=(0.1, 10.0)))[1]["c"] == 0.1


def test_the_test_split_is_evaluated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, features = synthetic.linear_toy(tmp_path, counts={"train": 24, "val": 12, "test": 15})
    seen: list[int] = []
    original = linear.predictions
    monkeypatch.setattr(linear, "predictions", lambda *args: seen.append(len(args[2])) or original(*args))
    linear.run(features, store, CONFIG)
    assert seen == [12, 15]


def test_classes_missing_from_splits_are_named_and_counted(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path, classes=4)
    keep = np.load(store.root / "train.labels.npy")
    keep[keep == 3] = 0
    synthetic.replace(store, "train.labels.npy", keep)
    result = linear.run(features, store, CONFIG)
    assert result.counts["classes_missing"] == {"train": ["class3"], "val": [], "test": []}
    assert result.metrics["test"]["linear_accuracy"] <= 0.75
    assert result.metrics["test"]["linear_auc"] <= 0.875 + 1e-9, "the unseen class has an AUC of one half"


def test_a_test_split_of_one_class_has_no_auc(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path)
    synthetic.replace(store, "test.labels.npy", np.zeros(12, dtype=np.int64))
    result = linear.run(features, store, CONFIG)
    assert "linear_auc" not in result.metrics["test"]
    assert "linear_auc" in result.metrics["val"]


def test_a_train_split_of_one_class_is_an_error(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path)
    synthetic.replace(store, "train.labels.npy", np.zeros(24, dtype=np.int64))
    with pytest.raises(UserError, match="one class only"):
        linear.run(features, store, CONFIG)


def test_labels_beyond_the_named_classes_are_an_error(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path)
    synthetic.replace(store, "val.labels.npy", np.full(12, 7, dtype=np.int64))
    with pytest.raises(UserError, match="'val' go beyond the 3 named"):
        linear.run(features, store, CONFIG)


def test_the_augmented_bank_replaces_only_the_train_features(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path)
    rng = np.random.default_rng(0)
    features.augmented["train"] = rng.normal(size=features.cls["train"].shape).astype(np.float32)
    augmented = linear.run(features, store, linear.Config(c_grid=(1.0,), bank="augmented"))
    assert augmented.metrics["test"]["knn_accuracy"] < 0.9
    assert augmented.selected["bank"] == "augmented"
    assert linear.run(features, store, CONFIG).metrics["test"]["knn_accuracy"] == 1.0


def test_twice_gives_the_same(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path, noise=0.6)
    first, second = (linear.run(features, store, CONFIG, seed=seed, examples=2) for seed in (3, 4))
    assert first.summary() == second.summary()
    for name, array in first.outcomes.items():
        assert np.array_equal(array, second.outcomes[name])


def brute_knn(bank: np.ndarray, labels: np.ndarray, queries: np.ndarray, k: int) -> list[int]:
    """Vote of the k nearest by cosine distance, weighted by its inverse; written apart from the probe."""
    unit = [
        rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1)[:, None] for rows in (bank, queries)
    ]
    distance = 1 - unit[1] @ unit[0].T
    predicted = []
    for row in distance:
        near = np.argsort(row)[:k]
        votes = np.zeros(labels.max() + 1)
        np.add.at(votes, labels[near], 1 / row[near])
        predicted.append(int(votes.argmax()))
    return predicted


def shifted_toy(tmp_path: Path) -> tuple[Store, FeatureSet]:
    """Class tokens far from the origin on one side, as those of real ViTs are: centring them turns their angles."""
    store, features = synthetic.linear_toy(tmp_path, noise=1.0, counts={"train": 60, "val": 30, "test": 60})
    for rows in features.cls.values():
        rows += np.array([0, 0, 0, 20, 5, 0, 0, 0], np.float32)
    return store, features


def test_knn_is_asked_on_normalised_features_neither_centred_nor_scaled(tmp_path: Path) -> None:
    store, features = shifted_toy(tmp_path)
    train, test = features.cls["train"], features.cls["test"]
    expected = brute_knn(train, np.asarray(store.labels("train")), test, 20)
    result = linear.run(features, store, CONFIG)
    assert result.outcomes["knn"].tolist() == expected
    x = linear.centre_and_scale({"train": linear.normalise(train), "test": linear.normalise(test)})
    centred = linear.fit_knn(x["train"], np.asarray(store.labels("train")), CONFIG).predict(x["test"])
    assert centred.tolist() != expected, "this toy could not tell the two apart"


def test_outcomes_are_class_ids_and_the_metrics_are_theirs(tmp_path: Path) -> None:
    store, features = shifted_toy(tmp_path)
    result = linear.run(features, store, CONFIG)
    truth = store.labels("test")
    assert set(result.outcomes) == {"knn", "linear"}
    for name, ids in result.outcomes.items():
        assert ids.dtype == np.int16
        assert result.metrics["test"][f"{name}_accuracy"] == (ids == truth).mean()
        assert result.metrics["test"][f"{name}_macro_f1"] == f1_score(truth, ids, average="macro")


def test_the_bank_of_n_holds_the_drawn_images_of_the_train_split_alone(tmp_path: Path) -> None:
    store, features = shifted_toy(tmp_path)
    config = linear.Config(c_grid=(1.0,), bank_of_n=True)
    rows = [3, 7, 8, 11, 20, 31, 40]
    # An unlabelled image may also be none of the train split, or none of this store.
    drawn = frozenset([*(f"train{i}" for i in rows), "elsewhere"])
    result, plain = (linear.run(features, store, config, drawn=d) for d in (drawn, frozenset()))
    expected = brute_knn(features.cls["train"][rows], np.asarray(store.labels("train"))[rows], features.cls["test"], 7)
    assert result.outcomes["bank_knn"].tolist() == expected
    assert result.metrics["test"]["bank_knn_accuracy"] == (np.array(expected) == store.labels("test")).mean()
    assert "bank_knn_macro_f1" in result.metrics["val"]
    assert result.counts["bank_of_n"] == 7
    rest = {name: value for name, value in result.metrics["test"].items() if not name.startswith("bank_")}
    assert rest == plain.metrics["test"], "without a drawn image the metric is left out, and nothing else changes"
    assert "bank_knn" not in plain.outcomes
    unasked = linear.run(features, store, linear.Config(c_grid=(1.0,)), drawn=drawn)
    assert unasked.metrics["test"] == plain.metrics["test"]


def test_a_bank_of_one_image_predicts_its_class(tmp_path: Path) -> None:
    store, features = synthetic.linear_toy(tmp_path)
    config = linear.Config(c_grid=(1.0,), bank_of_n=True)
    found = linear.run(features, store, config, drawn=frozenset({"train4"}))
    assert set(found.outcomes["bank_knn"].tolist()) == {4 % 3}


def test_neighbours_are_the_nearest_train_images(tmp_path: Path) -> None:
    store, features = shifted_toy(tmp_path)
    found = linear.run(features, store, CONFIG, examples=3).examples
    assert found["rows"].tolist() == [0, 30, 59]
    x = {split: linear.normalise(features.cls[split]) for split in ("train", "test")}
    nearest = np.argsort(-(x["test"][found["rows"]] @ x["train"].T), axis=1)[:, :4]
    assert found["train_rows"].tolist() == nearest.tolist()
    assert len(linear.run(features, store, CONFIG).examples["rows"]) == 0


def test_the_linear_probe_does_not_import_torch(tmp_path: Path) -> None:
    synthetic.linear_toy(tmp_path)
    code = f"""
import sys
import numpy as np
from lowdata_cpt.data.store import Store
from lowdata_cpt.probes import linear, registry
from lowdata_cpt.probes.result import FeatureSet
store = Store({str(tmp_path / "store")!r})
rng = np.random.default_rng(0)
cls = {{split: rng.normal(size=(len(store.labels(split)), 4)).astype(np.float32) for split in ("train", "val", "test")}}
linear.run(FeatureSet(cls=cls), store, registry.Probes().linear)
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
        model, _ = linear.fit_linear(z["train"], labels, z["val"], labels, linear.Config())
        scores.append((model.predict(z["val"]) == labels).mean())
    assert scores == [1.0, 1.0]
