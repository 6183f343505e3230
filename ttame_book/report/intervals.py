"""From scores to means with their intervals.

Scores have one row an image: columns measure, v, image_id, value and those that say what is scored,
mostly backbone and method. ``by`` names the columns within which rows are taken together. All
intervals are bootstrapped over images, and seeded.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.special import stdtr
from scipy.stats import bootstrap, norm, t

from ttame_core.metrics.measures import MEASURES, direction


def means_table(scores: pd.DataFrame, by: Sequence[str] = ("method",)) -> pd.DataFrame:
    """Compute the mean of every measure over images, and its 95 % interval.

    Columns of the result are those of ``by``, measure, v, n (images), mean, low, high.
    """
    rows = []
    keys, valid = [*by, "measure", "v"], scores[scores["measure"] != "invalid"]
    for key, group in valid.groupby(keys, sort=False, observed=True):
        values = group["value"].dropna().to_numpy()
        rows.append((*key, len(values), values.mean(), *bootstrap_interval(values)))
    return pd.DataFrame(rows, columns=[*keys, "n", "mean", "low", "high"])


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Compute the 95 % percentile bootstrap interval of the mean of values ``(n,)``: low and high.

    Both are the mean where all values are alike, and NaN where there are fewer than two.
    """
    if len(values) < 2:
        return math.nan, math.nan
    if np.ptp(values) == 0:
        return float(values.mean()), float(values.mean())
    # no matrix product: its threads wait for each other longer than this takes
    means = np.einsum("ij,j->i", _draws(len(values), seed), values) / len(values)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


@lru_cache(maxsize=4)
def _draws(n: int, seed: int) -> np.ndarray:
    """Count how often each of 2,000 resamples draws each of n values, ``(2000, n)``.

    They are the resamples of SciPy's `bootstrap`, drawn once for all samples of a size: tables of
    thousands of intervals are made ten times as fast.
    """
    drawn = np.random.default_rng(seed).integers(0, n, (2000, n))
    return np.stack([np.bincount(each, minlength=n) for each in drawn]).astype(float)


def simultaneous_intervals(
    samples: Sequence[np.ndarray], level: float = 0.95, seed: int = 0
) -> np.ndarray:
    """Compute bootstrap intervals of the means of several samples ``(n,)`` that hold all at once.

    By Bonferroni all of them together have the confidence ``level``. Returns low and high of each,
    ``(len(samples), 2)``; NaN where there are fewer than two values.
    """
    intervals = np.full((len(samples), 2), np.nan)
    tail = (1 - level) / max(len(samples), 1) / 2
    for n in {len(sample) for sample in samples} - {0, 1}:
        those = [i for i, sample in enumerate(samples) if len(sample) == n]
        values = np.stack([samples[i] for i in those])  # (m, n): resampled together
        found = bootstrap(
            (values,),
            np.mean,
            n_resamples=10_000,  # of which some lie beyond the limits of a hundred samples too
            batch=max(1, 2_000_000 // values.size),
            axis=1,
            confidence_level=1 - 2 * tail,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        means = values.mean(axis=1)
        # percentile intervals are too narrow for few values, the more so far out in the tails: they
        # are widened by what Student's t adds to the normal quantile, the factor by which
        # Hesterberg (The American Statistician, 2015) expands their level
        wider = t.ppf(tail, n - 1) / norm.ppf(tail) * math.sqrt(n / (n - 1))
        intervals[those] = (means + wider * (np.stack(found) - means)).T
    return intervals


def clearness(
    values: np.ndarray, bound: float, interval: Sequence[float] | np.ndarray, level: float = 0.05
) -> float:
    """Tell how far a mean is from a bound, in reaches of its interval (low, high) towards it.

    Beyond 1 the interval leaves the bound out. Values are ``(n,)``; ``level`` is of significance.
    The result is positive above the bound, negative below, and 0 for fewer than two values.
    """
    if len(values) < 2 or values.mean() == bound:
        return 0.0
    mean = float(values.mean())
    reach = abs(mean - interval[0 if mean > bound else 1])
    clear = (mean - bound) / reach if reach else math.copysign(math.inf, mean - bound)
    # a bootstrap is sure of two values that agree, and gives values all alike no width: nothing is
    # clear where fewer differ from the bound than a sign test needs if they all agree
    few = 2.0 ** (1 - np.count_nonzero(values != bound)) >= level
    return min(max(clear, -1.0), 1.0) if few else clear


def averages(scores: pd.DataFrame) -> pd.DataFrame:
    """Average each image's curves over v, as Tables IV and V do with ROAD's.

    Measures of the result are called ``mean <measure>``, and their v is 0.
    """
    names = {name: measure.averaged.name for name, measure in MEASURES.items() if measure.average}
    curves = scores[scores["measure"].isin(list(names))]
    keys = [column for column in curves.columns if column not in ("v", "value")]
    means = curves.groupby(keys, sort=False, observed=True, as_index=False)["value"].mean()
    return means.assign(measure=means["measure"].map(names), v=0)


def paired_differences(
    scores: pd.DataFrame, methods: Sequence[str] = ("t-tame",), by: Sequence[str] = ("backbone",)
) -> pd.DataFrame:
    """Compare methods with every other on the images that both have scores of.

    Two of ``methods`` are compared once, the first with the second; one without scores is left out.
    Columns of the result are those of ``by``, measure, v, method, rival, n (images), difference
    (method minus rival), low, high (its 95 % interval) and p (paired t-test, corrected by Holm).
    """
    rows = []
    keys, contests = [*by, "measure", "v"], scores[scores["measure"].map(direction) != 0]
    for key, group in contests.groupby(keys, sort=False, observed=True):
        wide = group.pivot_table(index="image_id", columns="method", values="value", sort=False)
        values = {name: column.to_numpy() for name, column in wide.items()}  # (images,) each
        found = [method for method in methods if method in values]
        for i, method in enumerate(found):
            for rival in wide.columns.drop(found[: i + 1]):
                apart = values[method] - values[rival]
                apart = apart[~np.isnan(apart)]
                if len(apart):
                    ends = bootstrap_interval(apart)
                    rows.append(
                        (*key, method, rival, len(apart), apart.mean(), *ends, paired_p(apart))
                    )
    columns = [*keys, "method", "rival", "n", "difference", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=columns)
    if len(table):
        # for all comparisons within a ``by``, whichever the method: who picks the best of several
        # methods has looked at all their comparisons
        table["p"] = table.groupby(list(by), sort=False)["p"].transform(
            lambda p: holm(p.to_numpy())
        )
    return table


def holm(p: np.ndarray) -> np.ndarray:
    """Correct p values ``(n,)`` for their number (Holm, Scand. J. Stat. 1979), at most to 1."""
    # statsmodels' function collects the whole process's garbage, which takes half a second a call
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return corrected


def paired_p(differences: np.ndarray) -> float:
    """Compute the two-sided p of a paired t-test; 1 where nothing differs, or is but one image."""
    if len(differences) < 2 or not differences.any():
        return 1.0
    if np.ptp(differences) == 0:
        # no variance, which a t-test takes for proof: as a sign test, all of them one way
        return 2.0 ** (1 - len(differences))
    n = len(differences)  # SciPy's `ttest_1samp` takes ten times as long, mostly for its checks
    statistic = differences.mean() / (differences.std(ddof=1) / math.sqrt(n))
    return float(2 * stdtr(n - 1, -abs(statistic)))
