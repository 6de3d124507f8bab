"""What each probe gave for every test image, and the metrics of resampled test images. Torch-free.

`outcomes/<backbone>-<domain>.npz` of a study holds, for each milestone (of dense maps: the end of a run, and where
validation would stop it), entries `<method>/n<n>/s<seed>/i<images seen>/<name>`; the classes of the test images,
`truth/linear` int16 [M]; and where a probe's test images come in groups (frames of one video, crops of one scene) the
group of each, `groups/<probe>` int32 [M]. Names:

- `linear/knn`, `linear/linear`, `linear/bank_knn`: predicted classes int16 [M];
- `segmentation/counts`: hits, truth pixels, predicted pixels int32 [M, C, 3];
- `depth/errors`: RMSE in metres, AbsRel, δ1 float32 [M, 3], NaN for an image without valid depth.

The images and their order are the same for every entry of a file. The score in the table is the metric of all of them.
"""

from __future__ import annotations

import functools
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.provenance import of_study

Array = NDArray[np.float64]
DRAWS = 2_000
TRUTH, GROUPS = "truth/linear", "groups/"
ENTRY_OF = {
    **{
        f"{probe}_{name}": f"linear/{probe}"
        for probe in ("knn", "bank_knn", "linear")
        for name in ("accuracy", "macro_f1")
    },
    **dict.fromkeys(("miou", "pixel_accuracy"), "segmentation/counts"),
    **dict.fromkeys(("rmse", "abs_rel", "delta1"), "depth/errors"),
}


def weighted_metrics(entry: str, outcome: NDArray[Any], truth: NDArray[Any] | None, weights: Array) -> dict[str, Array]:
    """Return each metric of an entry for weighted test images.

    Args:
        entry: its name, e.g. `linear/knn`.
        outcome: the entry, first axis [M].
        truth: [M] class ids, for the classification probes.
        weights: [B, M], how often each image counts; ones give the table's score.

    Returns:
        Metric → [B]. Macro-F1 and mIoU average over the classes that occur among the images that count. NaN where no
        image that counts has a label.
    """
    if entry == "depth/errors":
        known = np.isfinite(outcome)
        means = _ratio(weights @ np.where(known, outcome, 0.0), weights @ known)
        return dict(zip(("rmse", "abs_rel", "delta1"), means.T, strict=True))
    if entry == "segmentation/counts":
        flat = weights @ outcome.reshape(len(outcome), -1).astype(float)
        hits, true, predicted = np.moveaxis(flat.reshape(len(weights), -1, 3), -1, 0)
        labelled = true.sum(1)
        miou = np.where(labelled > 0, _ratio_mean(hits, true + predicted - hits), np.nan)
        return {"miou": miou, "pixel_accuracy": _ratio(hits.sum(1), labelled)}
    if truth is None:
        raise UserError(f"{TRUTH} is missing, {entry} needs the classes of the test images")
    probe = entry.removeprefix("linear/")
    classes = np.union1d(truth, outcome)
    true, guess = truth[:, None] == classes, outcome[:, None] == classes
    hits = weights @ (true & guess)
    f1 = _ratio_mean(2 * hits, weights @ true + weights @ guess)
    return {f"{probe}_accuracy": hits.sum(1) / weights.sum(1), f"{probe}_macro_f1": f1}


def _ratio(above: Array, below: Array) -> Array:
    """above / below where below is positive, else NaN."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _ratio_mean(above: Array, below: Array) -> Array:
    """Mean over the last axis of above / below where below is positive."""
    seen = below > 0
    ratios = np.divide(above, below, out=np.zeros_like(above), where=seen)
    return np.asarray(ratios.sum(axis=-1) / np.maximum(seen.sum(axis=-1), 1))


@functools.lru_cache(maxsize=4)
def draws_of_images(count: int, groups: tuple[int, ...] = ()) -> Array:
    """Return [DRAWS, count]: how often each test image occurs in each bootstrap sample; equal for equal arguments.

    Args:
        count: number of images.
        groups: the group of each image; whole groups are drawn then, since their images are near-copies.
    """
    if groups:
        _, number = np.unique(groups, return_inverse=True)
        return np.asarray(draws_of_images(int(number.max()) + 1)[:, number])
    drawn = np.random.default_rng(count).multinomial(count, np.full(count, 1 / count), size=DRAWS)
    return drawn.astype(np.float64)


class Outcomes:
    """The per-image outcomes of a study, read as they are asked for."""

    def __init__(self, folder: Path | None = None) -> None:
        """Open `folder` (`results/<study>/outcomes`); without one, or where it is absent, nothing is known."""
        self.folder = folder
        self._files: dict[str, Mapping[str, NDArray[Any]] | None] = {}
        self._replicates: dict[tuple[str, str], dict[str, Array]] = {}
        self._drawn: dict[tuple[str, str, str], int] = {}

    def replicates(self, row: Mapping[str, Any], prefix: str = "") -> Array | None:
        """Return the metric of a row of the table on every bootstrap sample of its test images.

        The samples are the same for every row of a domain and task, so that differences of two rows are paired.

        Args:
            row: `backbone, domain, method, n, seed, metric, images_seen`.
            prefix: `reference_` takes `reference`, `reference_n` and `reference_images_seen` instead.

        Returns:
            [DRAWS], or None where the row has no outcomes.

        Raises:
            UserError: the file is no archive of arrays, or lacks the truth.
        """
        entry = ENTRY_OF.get(row["metric"])
        name = f"{row['backbone']}-{row['domain']}"
        arrays = self._open(name)
        if entry is None or arrays is None:
            return None
        method = row["reference"] if prefix else row["method"]
        key = f"{method}/n{row[f'{prefix}n']}/s{row['seed']}/i{row[f'{prefix}images_seen']}/{entry}"
        if key not in arrays:
            return None
        if (name, key) not in self._replicates:
            with self._named(name):  # an .npz is read array by array
                outcome, groups = arrays[key], arrays.get(GROUPS + entry.split("/")[0])
                truth = arrays.get(TRUTH)
            weights = draws_of_images(len(outcome), () if groups is None else tuple(groups.tolist()))
            self._replicates[name, key] = weighted_metrics(entry, outcome, truth, weights)
        return self._replicates[name, key][row["metric"]]

    def count(self, backbone: str, domain: str, metric: str) -> int | None:
        """Return the number of test images that a metric of a domain was measured on, None where it is not kept."""
        entry, arrays = ENTRY_OF.get(metric), self._open(f"{backbone}-{domain}") or {}
        with self._named(f"{backbone}-{domain}"):
            return next((len(arrays[name]) for name in arrays if entry and name.endswith(f"/{entry}")), None)

    def drawn(self, backbone: str, domain: str, metric: str) -> int:
        """Return how many test images, or groups of them, a bootstrap sample is made of; 0 where none are kept."""
        place = backbone, domain, metric
        if place not in self._drawn:
            arrays = self._open(f"{backbone}-{domain}") or {}
            with self._named(f"{backbone}-{domain}"):
                groups = arrays.get(GROUPS + ENTRY_OF.get(metric, "").split("/")[0])
            self._drawn[place] = len(np.unique(groups)) if groups is not None else self.count(*place) or 0
        return self._drawn[place]

    def _open(self, name: str) -> Mapping[str, NDArray[Any]] | None:
        if name not in self._files:
            path = None if self.folder is None else self.folder / f"{name}.npz"
            with self._named(name):
                self._files[name] = np.load(of_study(path), allow_pickle=False) if path and path.exists() else None
        return self._files[name]

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Turn what numpy raises of a damaged file into one sentence."""
        try:
            yield
        except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
            raise UserError(f"{self.folder}/{name}.npz: expected an .npz file of per-image outcomes") from None


def read_outcomes(study_dir: Path) -> Outcomes:
    """Return the outcomes of a study's folder; where it has none, intervals cover seeds only."""
    folder = study_dir / "outcomes"
    return Outcomes(folder if folder.is_dir() else None)
