"""A small study in the contract's format, with known effects, for the tests of the analysis.

`scores` is the table: every trained cell at three milestones. `study` writes a folder in which, beside it, each end of
a run has per-image outcomes, and the end's score is exactly the metric of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lowdata_cpt.analysis.table import COLUMNS, METRICS

ALL = ("knn_accuracy", "knn_macro_f1", "linear_accuracy", "linear_macro_f1", "linear_auc")
DOMAINS = {
    "tabletop": {
        "metrics": (*ALL, "miou", "pixel_accuracy", "rmse", "abs_rel", "delta1"),
        "n": (100, 250, 500, 1000),
    },
    "nyuv2": {"metrics": ("miou", "pixel_accuracy", "rmse", "abs_rel", "delta1"), "n": (100, 250, 500, 795)},
    "cifar10": {"metrics": ALL, "n": (100, 1000)},
    "neu_steel": {"metrics": ALL, "n": (100, 1000)},
    "camvid": {"metrics": ("miou", "pixel_accuracy"), "n": (100, 250)},
}
BASE = {"rmse": 0.9, "abs_rel": 0.29, "delta1": 0.5, "miou": 0.4, "pixel_accuracy": 0.6}
EFFECT = {  # oriented gain at n = 1000 as a share of the base: classification, dense
    "diet_cp": (0.12, -0.03),
    "glare": (0.01, 0.03),
    "tec": (-0.05, 0.01),
    "v_pretraining": (0.02, 0.05),
    "dino": (0.03, -0.02),
    "mae": (-0.08, -0.04),
    "glare_no_regional": (0.01, 0.01),
    "v_pretraining_random_mask": (0.01, 0.0),
}
SECONDS = {"diet_cp": 60, "glare": 140, "tec": 90, "v_pretraining": 260, "dino": 150, "mae": 70}
IMAGES = 12_800
MILESTONES = {1_600: 0.3, 4_800: 0.7, IMAGES: 1.0}  # images seen: the share of the effect that is there
TEST_IMAGES = 200
CLASSES = {"linear": 5, "segmentation": 4}


def scores(
    domains: tuple[str, ...] = tuple(DOMAINS),
    seeds: int = 3,
    methods: tuple[str, ...] = tuple(EFFECT),
    noise: float = 0.012,
    study: str = "embedded",
    milestones: tuple[int, ...] = tuple(MILESTONES),
) -> pd.DataFrame:
    rng, early = np.random.default_rng(7), np.random.default_rng(8)  # the ends are the same with and without the others
    rows = []
    for domain in domains:
        for seed in range(seeds):
            for name in DOMAINS[domain]["metrics"]:
                metric = METRICS[name]
                base = BASE.get(name, 0.6) + 0.02 * rng.standard_normal()
                sign = 1 if metric.higher else -1

                def row(method, n, value, seen, seconds, domain=domain, seed=seed, metric=metric):
                    if metric.bounded:
                        value = min(max(value, 0.0), 1.0)
                    mirrored = 1 - value if metric.bounded else 3 - value  # validation says the opposite
                    for split, shown in (("val", mirrored), ("test", value)):
                        place = [study, "vits14_imgfocus", domain, method, n, seed, metric.task]
                        rows.append([*place, metric.name, split, round(float(shown), 6), seen, seconds])

                row("base", 0, base, 0, 0.0)
                row("random", 0, base * (0.4 if metric.higher else 1.5), 0, 0.0)
                row("base_domain_norm", 0, base * (1 + sign * 0.01), 0, 0.0)
                for method in methods:
                    for n in DOMAINS[domain]["n"]:
                        effect = EFFECT[method][metric.task != "linear"] * np.log10(n) / 3
                        value = base * (1 + sign * (effect + noise * rng.standard_normal()))
                        seconds = SECONDS.get(method, 150) * (1 + 0.05 * rng.random())
                        for images in milestones[:-1]:
                            reached = MILESTONES[images] * effect + noise * early.standard_normal()
                            row(method, n, base * (1 + sign * reached), images, round(seconds * images / IMAGES, 2))
                        row(method, n, value, milestones[-1], round(seconds, 2))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def curves(table: pd.DataFrame, steps: int = 60) -> pd.DataFrame:
    parts = {
        "glare": ("global", "regional", "local"),
        "tec": ("feature", "relation"),
        "v_pretraining": ("value",),
    }
    rng = np.random.default_rng(3)
    names = ["backbone", "domain", "method", "n", "seed"]
    runs = table.loc[table["n"] > 0, names].drop_duplicates()
    rows = []
    for run in runs.itertuples(index=False):
        for step in range(1, steps + 1):
            row = {**run._asdict(), "step": step, "images_seen": step * IMAGES // steps}
            rows.append(row)
            for part in ("loss", *parts.get(run.method, ()), "lr"):
                decay = np.exp(-step / (5 + run.n / 50))
                value = (
                    1e-4 * np.sin(np.pi * step / steps) if part == "lr" else 2 + 3 * decay + 0.1 * rng.standard_normal()
                )
                row[part] = value
    return pd.DataFrame(rows)


def cost(table: pd.DataFrame) -> pd.DataFrame:
    keys = ["backbone", "domain", "method", "n", "seed", "images_seen", "train_seconds"]
    frame = table.loc[table["n"] > 0, keys].drop_duplicates().groupby(keys[:5], as_index=False).max()
    frame["steps"] = frame["images_seen"] // 32
    counts = {"diet_cp": 3_550_000, "glare": 600_000, "tec": 24_000_000, "v_pretraining": 22_000_000}
    frame["trainable_parameters"] = frame["method"].map(counts).fillna(22_000_000).astype(int)
    return frame


def qualitative(path: Path, methods: tuple[str, ...] = ("base", "diet_cp", "glare", "tec", "v_pretraining")) -> None:
    rng = np.random.default_rng(0)
    K, H, W = 2, 84, 112
    y, x = np.mgrid[:H, :W] / 100
    images, truth, depth = [], [], []
    for k in range(K):
        labels = (np.floor(3 * np.sin(5 * x + k) + 3 * np.cos(4 * y + 2 * k)) % 7).astype(np.uint8)
        labels[:3] = 255
        metres = (1 + y + 0.3 * np.sin(4 * x + k)).astype(np.float32)
        metres[-4:] = 0
        noise = rng.integers(0, 40, (H, W, 3))
        images.append(np.clip(30 * labels[..., None] % 200 + noise + np.array([10, 30, 50]), 0, 255).astype(np.uint8))
        truth.append(labels)
        depth.append(metres)
    arrays = {
        "image": np.stack(images),
        "segmentation_truth": np.stack(truth),
        "depth_truth": np.stack(depth),
    }
    arrays["segmentation_classes"] = np.array(["background", "mug", "bowl", "book", "carton", "pan", "rack"])
    arrays["segmentation_ignore"] = np.int64(255)
    for index, method in enumerate(methods):
        wrong = rng.random((K, H // 14, W // 14)).repeat(14, 1).repeat(14, 2) < 0.35 - 0.05 * index
        guess = np.where(
            wrong,
            rng.integers(0, 7, wrong.shape),
            np.where(arrays["segmentation_truth"] == 255, 0, arrays["segmentation_truth"]),
        )
        arrays[f"segmentation_{method}"] = guess.astype(np.uint8)
        arrays[f"depth_{method}"] = (
            (arrays["depth_truth"] + 0.2 * rng.standard_normal((K, 1, 1))).clip(0.3).astype(np.float32)
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def _labels(rng: np.random.Generator, accuracy: float, truth: np.ndarray, easy: np.ndarray) -> np.ndarray:
    """Predicted ids [M]: right where the image is easy enough, else the next class."""
    right = easy + 0.03 * rng.standard_normal(len(truth)) < accuracy
    return np.where(right, truth, (truth + 1) % CLASSES["linear"]).astype(np.int16)


def _counts(rng: np.random.Generator, iou: float, pixels: np.ndarray, easy: np.ndarray) -> np.ndarray:
    """Hits, truth and predicted pixels [M, C, 3] with a union over intersection of about `iou`."""
    share = np.clip(2 * iou / (1 + iou) + 0.1 * (0.5 - easy) + 0.02 * rng.standard_normal(len(easy)), 0, 1)
    hits = np.round(share[:, None] * pixels)
    return np.stack([hits, pixels, pixels], axis=-1).astype(np.int32)


def _errors(rng: np.random.Generator, means: list[float], easy: np.ndarray) -> np.ndarray:
    """RMSE, AbsRel and δ1 [M, 3]; the last image has no valid depth."""
    per_image = np.array(means) * (1 + 0.2 * (easy[:, None] - easy.mean()) + 0.02 * rng.standard_normal((len(easy), 3)))
    per_image[-1] = np.nan
    return per_image.astype(np.float32)


def _pooled(probe: str, found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The metrics of one file entry, written out."""
    if probe == "depth":
        return dict(zip(("rmse", "abs_rel", "delta1"), np.nanmean(found.astype(float), axis=0), strict=True))
    if probe == "segmentation":
        hits, true, predicted = found.sum(axis=0).T.astype(float)
        return {"miou": float((hits / (true + predicted - hits)).mean()), "pixel_accuracy": hits.sum() / true.sum()}
    f1 = []
    for c in set(truth) | set(found):
        hits = ((truth == c) & (found == c)).sum()
        f1.append(2 * hits / ((truth == c).sum() + (found == c).sum()))
    return {"accuracy": float((truth == found).mean()), "macro_f1": float(np.mean(f1))}


def outcomes(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Write outcomes/<backbone>-<domain>.npz for the ends of `table`; return it with the scores that these give."""
    rng = np.random.default_rng(11)
    values = table.set_index([*table.columns[1:9], "images_seen"])["value"].to_dict()
    cell = ["backbone", "domain", "method", "n", "seed"]
    for (backbone, domain), rows in table.groupby(["backbone", "domain"], sort=False):
        truth = rng.integers(CLASSES["linear"], size=TEST_IMAGES).astype(np.int16)
        easy = rng.permutation((np.arange(TEST_IMAGES) + 0.5) / TEST_IMAGES)
        pixels = rng.integers(20, 200, (TEST_IMAGES, CLASSES["segmentation"]))
        metrics = set(rows["metric"])
        arrays = {"truth/linear": truth} if "knn_accuracy" in metrics else {}
        ends = rows.groupby(cell, sort=False)["images_seen"].max()
        for (_, _, method, n, seed), images in ends.items():

            def value(task, metric, place=(backbone, domain, method, n, seed), images=images):
                return values[(*place, task, metric, "test", images)]

            key = f"{method}/n{n}/s{seed}/i{images}"
            found = {}
            if "knn_accuracy" in metrics:
                for probe in ("knn", "linear"):
                    target = value("linear", f"{probe}_accuracy")
                    found[f"linear/{probe}"] = _labels(rng, target, truth, easy)
            if "miou" in metrics:
                found["segmentation/counts"] = _counts(rng, value("segmentation", "miou"), pixels, easy)
            if "rmse" in metrics:
                means = [value("depth", metric) for metric in ("rmse", "abs_rel", "delta1")]
                found["depth/errors"] = _errors(rng, means, easy)
            for name, array in found.items():
                arrays[f"{key}/{name}"] = array
                probe, kind = name.split("/")
                for metric, score in _pooled(probe, array, truth).items():
                    metric = f"{kind}_{metric}" if probe == "linear" else metric
                    values[(backbone, domain, method, n, seed, probe, metric, "test", images)] = float(score)
        (folder / "outcomes").mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / "outcomes" / f"{backbone}-{domain}.npz", **arrays)
    keys = table[[*table.columns[1:9], "images_seen"]].itertuples(index=False, name=None)
    return table.assign(value=[values[key] for key in keys])


def study(folder: Path, **options) -> Path:
    """Write a study's folder: scores, outcomes, curves, costs, qualitative examples."""
    folder.mkdir(parents=True, exist_ok=True)
    table = outcomes(scores(**options), folder)
    table.to_csv(folder / "scores.csv", index=False)
    curves(table[table["domain"].isin(["tabletop", "nyuv2"])]).to_csv(folder / "curves.csv", index=False)
    cost(table).to_csv(folder / "cost.csv", index=False)
    for domain in sorted({"tabletop", "nyuv2"} & set(table["domain"])):
        qualitative(folder / "qualitative" / f"examples-vits14_imgfocus-{domain}.npz")
    return folder
