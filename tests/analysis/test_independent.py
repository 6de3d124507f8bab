"""The answer table, computed once more from `scores.csv` and the per-image files: shares no code with the analysis."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from tests.analysis import synthetic_study

EMBEDDED = Path(__file__).resolve().parents[2] / "results" / "embedded"
METHODS = {
    "DINO (control)": "dino",
    "MAE (control)": "mae",
    "DIET-CP": "diet_cp",
    "GLARE": "glare",
    "TEC": "tec",
    "V-pretraining": "v_pretraining",
}
METRICS = {
    "kNN accuracy (points)": ("knn_accuracy", "linear/knn"),
    "Linear accuracy (points)": ("linear_accuracy", "linear/linear"),
    "Segmentation mIoU (points)": ("miou", "segmentation/counts"),
    "Depth RMSE (%)": ("rmse", "depth/errors"),
}


def score_of(metric: str, outcome: np.ndarray, truth: np.ndarray | None) -> float:
    """One metric of one per-image entry, in plain arithmetic."""
    if metric == "rmse":
        known = [float(one) for one in outcome[:, 0] if one == one]
        return sum(known) / len(known)
    if metric == "miou":
        shares = []
        for c in range(outcome.shape[1]):
            hits, true, predicted = (int(outcome[:, c, k].sum(dtype=np.int64)) for k in range(3))
            if true + predicted - hits:
                shares.append(hits / (true + predicted - hits))
        return sum(shares) / len(shares)
    assert truth is not None
    return sum(int(a == b) for a, b in zip(outcome, truth, strict=True)) / len(truth)


def table_scores(folder: Path) -> dict[tuple[str, ...], dict[int, float]]:
    """Return (backbone, domain, method, n, seed, metric) → images seen → value, of the test split."""
    found: dict[tuple[str, ...], dict[int, float]] = defaultdict(dict)
    with (folder / "scores.csv").open() as stream:
        for row in csv.DictReader(stream):
            if row["split"] == "test":
                key = tuple(row[name] for name in ("backbone", "domain", "method", "n", "seed", "metric"))
                found[key][int(row["images_seen"])] = float(row["value"])
    return found


def check_answer(folder: Path, answer: str) -> int:
    """Assert that every gain in the answer table is that of the per-image files, and of the table of scores.

    Returns:
        The number of gains compared.
    """
    scores = table_scores(folder)
    names = {re.sub("[^a-z0-9]", "", key[1]): key[1] for key in scores}
    (backbone,) = {key[0] for key in scores}
    lines = [line.strip("| ").split(" | ") for line in answer.splitlines() if line.startswith("|")]
    header, compared = lines[0], 0
    for line in lines[2:]:
        domain, n = names[re.sub("[^a-z0-9]", "", line[0].lower())], line[1]
        metric, entry = METRICS[line[2]]
        with np.load(folder / "outcomes" / f"{backbone}-{domain}.npz") as arrays:
            truth = arrays.get("truth/linear")
            for label, cell in zip(header[3:], line[3:], strict=True):
                gains = []
                for key, milestones in scores.items():
                    if key[:4] != (backbone, domain, METHODS[label], n) or key[5] != metric:
                        continue
                    seed, images = key[4], max(milestones)
                    own = score_of(metric, arrays[f"{METHODS[label]}/n{n}/s{seed}/i{images}/{entry}"], truth)
                    base = score_of(metric, arrays[f"base/n0/s{seed}/i0/{entry}"], truth)
                    assert own == pytest.approx(milestones[images], abs=1e-5), key
                    assert base == pytest.approx(scores[backbone, domain, "base", "0", seed, metric][0], abs=1e-5), key
                    gains.append(100 * (base - own) / base if metric == "rmse" else 100 * (own - base))
                if cell == "–":
                    assert gains == [], (line[:3], label)
                    continue
                shown = re.match(r"\**([+−]\d+\.\d\d)", cell)
                assert shown, cell
                expected = sum(gains) / len(gains)
                assert float(shown[1].replace("−", "-")) == pytest.approx(expected, abs=0.0051), (line[:3], label)
                compared += 1
    return compared


def test_the_answer_of_a_synthetic_study(tmp_path: Path) -> None:
    from lowdata_cpt.analysis.commands import make_tables  # what is tested

    folder = synthetic_study.study(tmp_path / "study", domains=("tabletop", "cifar10"))
    make_tables(folder, tmp_path / "tables")
    answer = (tmp_path / "tables" / "answer.md").read_text()
    assert check_answer(folder, answer) == 6 * 6  # four metrics on one domain, two on the other; six methods
    wrong = re.sub(r"\+(\d)\.(\d\d) \[", lambda found: f"+{int(found[1]) + 1}.{found[2]} [", answer, count=1)
    with pytest.raises(AssertionError):
        check_answer(folder, wrong)


@pytest.mark.skipif(not (EMBEDDED / "outcomes").is_dir(), reason="the study has no per-image outcomes yet")
def test_the_committed_answer() -> None:
    assert check_answer(EMBEDDED, (EMBEDDED / "tables" / "answer.md").read_text()) > 0
