"""Statistics for few paired seeds: IQM, intervals, paired tests, Holm, detectable effect, rank stability.

The unit of replication is a *cluster*: one seed of one domain. Subsets of one seed are nested
(100 ⊂ 250 ⊂ …), so its sizes are not independent and are resampled, or sign-flipped, together.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

Array = NDArray[np.float64]
RESAMPLES = 10_000
EXACT_CLUSTERS = 14
LEVEL, POWER = 0.95, 0.8


@dataclass(frozen=True)
class Interval:
    """A point estimate with its confidence interval; `low` and `high` are NaN where none can be given.

    `covers` names the chance that the interval is about: `seeds and test images`, `seeds`, or `test images`.
    """

    estimate: float
    low: float = math.nan
    high: float = math.nan
    standard_error: float = math.nan
    degrees_of_freedom: float = math.nan
    covers: str = ""

    @property
    def known(self) -> bool:
        """Whether there is an interval at all (one seed gives none)."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def p_value(self) -> float:
        """Two-sided Student test of a zero estimate; NaN without a positive standard error."""
        if not (self.standard_error > 0 and self.degrees_of_freedom > 0):
            return math.nan
        return float(2 * stats.t.sf(abs(self.estimate) / self.standard_error, self.degrees_of_freedom))

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.known and (self.low > 0 or self.high < 0)


def iqm(values: ArrayLike) -> Array:
    """Interquartile mean over the last axis: the mean without the lowest and highest ⌊count/4⌋ values.

    NaNs are left out (Agarwal et al. 2021, section 4.3; equals `scipy.stats.trim_mean(values, 0.25)`).
    """
    ordered = np.sort(np.asarray(values, dtype=float), axis=-1)
    count = np.isfinite(ordered).sum(axis=-1, keepdims=True)
    cut = count // 4
    position = np.arange(ordered.shape[-1])
    kept = (position >= cut) & (position < count - cut)
    total = np.where(kept, ordered, 0.0).sum(axis=-1)
    return np.asarray(np.where(count[..., 0] > 0, total / np.maximum(kept.sum(axis=-1), 1), np.nan))


def cluster_matrices(values: ArrayLike, strata: Sequence[Hashable], clusters: Sequence[Hashable]) -> list[Array]:
    """Arrange values as one [clusters, values] matrix a stratum, padded with NaN."""
    nested: dict[Hashable, dict[Hashable, list[float]]] = {}
    for value, stratum, cluster in zip(np.asarray(values, dtype=float), strata, clusters, strict=True):
        nested.setdefault(stratum, {}).setdefault(cluster, []).append(float(value))
    matrices = []
    for members in nested.values():
        width = max(len(row) for row in members.values())
        matrices.append(np.array([row + [math.nan] * (width - len(row)) for row in members.values()]))
    return matrices


def bootstrap_interval(
    values: ArrayLike,
    strata: Sequence[Hashable],
    clusters: Sequence[Hashable],
    statistic: Callable[[ArrayLike], Array] = iqm,
    *,
    resamples: int = RESAMPLES,
) -> Interval:
    """Stratified percentile bootstrap: clusters are redrawn with replacement within every stratum.

    With 3 clusters a stratum the interval is too narrow however many strata there are (their variance is
    underestimated by a third): for one stratum it covers about 3 times in 4, not 19 in 20 (measured in the tests).
    Read an interval off `mean_of_intervals`; this one is given as the robust figure beside it.

    Args:
        values: [count].
        strata: [count], e.g. (backbone, domain).
        clusters: [count], e.g. the seed.
        statistic: reduces the last axis.
        resamples: number of bootstrap samples.

    Returns:
        The statistic and its interval; no interval if any stratum has one cluster only.
    """
    matrices = cluster_matrices(values, strata, clusters)
    estimate = float(statistic(np.concatenate([matrix.ravel() for matrix in matrices])))
    if any(len(matrix) < 2 for matrix in matrices):
        return Interval(estimate)
    generator = np.random.default_rng(0)
    drawn = []
    for matrix in matrices:
        index = generator.integers(len(matrix), size=(resamples, len(matrix)))
        drawn.append(matrix[index].reshape(resamples, -1))
    replicates = statistic(np.concatenate(drawn, axis=1))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high), float(np.std(replicates, ddof=1)))


def _student(estimate: float, variances: Sequence[float], freedoms: Sequence[float], covers: str) -> Interval:
    """Interval of an estimate whose variance is a sum: mean ± t(ν) · SE, ν after Welch and Satterthwaite."""
    variance = float(sum(variances))
    spread = sum(part**2 / freedom for part, freedom in zip(variances, freedoms, strict=True))
    # A sum of zeros has no ν of its own: that of its least known part, which is what a single part would have.
    freedom = variance**2 / spread if spread > 0 else float(min(freedoms) if variance > 0 else sum(freedoms))
    half = float(stats.t.ppf(0.5 + LEVEL / 2, freedom)) * math.sqrt(variance)
    return Interval(estimate, estimate - half, estimate + half, math.sqrt(variance), freedom, covers)


def joint_interval(values: ArrayLike, replicates: Array | None = None, images: float = math.inf) -> Interval:
    """Interval of a mean over seeds that also covers which test images were drawn: mean ± t(ν) · SE.

    SE is that of the pigeonhole bootstrap (Owen 2007, Annals of Applied Statistics 1(2)), which redraws seeds and test
    images independently, each with replacement. Given a sample of images, redrawing S seeds has a variance in closed
    form, so only images are drawn:

        SE² = Var_b(mean_s r_sb) + mean_b(var_s r_sb) / S

    with r_sb the gain of seed s on image sample b and var_s over S − 1 (Owen's S would make three seeds a third too
    sure). It errs on the wide side: noise of single (seed, image) pairs counts three times, as in Owen. The first term
    has M − 1 degrees of freedom, the second S − 1, their sum ν after Welch and Satterthwaite; ν = S − 1 for both, as
    if the images were as few as the seeds, would cover nearly always.

    Args:
        values: [S], the gain of each seed on all test images.
        replicates: [S, B], the same on B samples of the test images; None where the outcomes were not kept. Samples of
            images without any label have no gain (NaN) and are left out.
        images: M, the number of test images, or of groups of them that are drawn together.

    Returns:
        Seeds and test images; seeds only without `replicates` (the paired Student interval); test images only with one
        seed; no interval with one seed and no `replicates`.
    """
    gains = np.asarray(values, dtype=float)
    seeds, estimate = len(gains), float(np.mean(gains))
    if replicates is not None:
        replicates = replicates[:, np.isfinite(replicates).all(axis=0)]
    if replicates is None or replicates.shape[1] < 2 or images < 2:
        if seeds < 2:
            return Interval(estimate)
        return _student(estimate, [float(gains.var(ddof=1)) / seeds], [seeds - 1], "seeds")
    of_images = float(replicates.mean(axis=0).var(ddof=1))
    if seeds < 2:
        return _student(estimate, [of_images], [images - 1], "test images")
    of_seeds = float(replicates.var(axis=0, ddof=1).mean()) / seeds
    return _student(estimate, [of_images, of_seeds], [images - 1, seeds - 1], "seeds and test images")


def mean_of_intervals(parts: Sequence[Interval]) -> Interval:
    """Interval of the mean of independent estimates, one a domain, with Welch–Satterthwaite degrees of freedom.

    Returns:
        No interval if one of the parts has none. It covers what all of them cover.
    """
    estimate = float(np.mean([part.estimate for part in parts]))
    if not all(part.known for part in parts):
        return Interval(estimate)
    covered = {part.covers for part in parts}
    covers = covered.pop() if len(covered) == 1 else "seeds, and test images in part"
    shares = [(part.standard_error / len(parts)) ** 2 for part in parts]
    return _student(estimate, shares, [part.degrees_of_freedom for part in parts], covers)


def sign_flip_test(differences: ArrayLike, clusters: Sequence[Hashable] | None = None) -> float:
    """Two-sided paired permutation test of a zero mean: whole clusters change sign together.

    Exact up to `EXACT_CLUSTERS` clusters (the smallest possible p is then 2/2^clusters: .25 for three seeds);
    beyond, `RESAMPLES` random flips with the +1 correction.

    Returns:
        The p value in (0, 1].
    """
    values = np.asarray(differences, dtype=float)
    keys = list(range(len(values))) if clusters is None else list(clusters)
    names = {name: index for index, name in enumerate(dict.fromkeys(keys))}
    sums = np.bincount([names[key] for key in keys], weights=values, minlength=len(names))
    observed = abs(sums.sum())
    tolerance = 1e-12 * max(1.0, float(np.abs(sums).sum()))
    if len(sums) <= EXACT_CLUSTERS:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(sums))))
        return float((np.abs(signs @ sums) >= observed - tolerance).mean())
    signs = np.random.default_rng(0).choice((1.0, -1.0), size=(RESAMPLES, len(sums)))
    return float((1 + (np.abs(signs @ sums) >= observed - tolerance).sum()) / (1 + RESAMPLES))


def holm(p_values: ArrayLike) -> Array:
    """Holm's step-down adjustment of one family: adjusted p values in the input's order (NaNs stay)."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full_like(p, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    scaled = p[order] * (len(order) - np.arange(len(order)))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0) if len(order) else scaled
    return adjusted


def minimum_detectable_effect(standard_error: float, degrees_of_freedom: float) -> float:
    """Smallest true mean difference that a two-sided paired t test at .05 finds with 80 % power.

    Solves the noncentral t distribution for the noncentrality, times the standard error (sd/√seeds in one
    cell).

    Returns:
        The effect in the unit of `standard_error`; NaN without a standard error.
    """
    if not (math.isfinite(standard_error) and degrees_of_freedom > 0):
        return math.nan
    # Infinite for an interval over test images alone; there the t distribution is the normal one.
    return _noncentrality(min(float(degrees_of_freedom), 1e6)) * standard_error


@functools.cache
def _noncentrality(degrees_of_freedom: float) -> float:
    critical = float(stats.t.ppf(0.5 + LEVEL / 2, degrees_of_freedom))

    def shortfall(noncentrality: float) -> float:
        above = float(stats.nct.sf(critical, degrees_of_freedom, noncentrality))
        below = float(stats.nct.sf(critical, degrees_of_freedom, -noncentrality))
        return above + below - POWER

    return float(optimize.brentq(shortfall, 0.0, 10 * critical + 10))


@dataclass(frozen=True)
class RankStability:
    """How far the ranking of methods agrees between cells.

    Attributes:
        mean_rank: [methods], 1 = best, ties averaged.
        concordance: Kendall's W over cells, 1 = the same ranking everywhere, 0 = none (tie-corrected).
    """

    mean_rank: Array
    concordance: float


def rank_stability(scores: ArrayLike) -> RankStability:
    """Rank methods within cells. No interval: cells of one seed, or of one model, are not independent.

    Args:
        scores: [cells, methods], oriented so that higher is better, complete.

    Raises:
        ValueError: `scores` is not two-dimensional, complete and non-empty.
    """
    table = np.asarray(scores, dtype=float)
    if table.ndim != 2 or table.size == 0 or not np.isfinite(table).all():
        raise ValueError("rank stability needs a complete [cells, methods] table")
    ranks = stats.rankdata(-table, axis=1)
    return RankStability(ranks.mean(axis=0), _concordance(ranks))


def _concordance(ranks: Array) -> float:
    cells, methods = ranks.shape
    if cells < 2 or methods < 2:
        return math.nan
    spread = float(((ranks.sum(axis=0) - cells * (methods + 1) / 2) ** 2).sum())
    tied = [np.unique(row, return_counts=True)[1] for row in ranks]
    ties = sum(float((count**3 - count).sum()) for count in tied)
    most = cells**2 * (methods**3 - methods) - cells * ties
    return 12 * spread / most if most > 0 else math.nan
