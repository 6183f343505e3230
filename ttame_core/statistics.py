"""From scores, one row an image, to means with their intervals."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy.stats import bootstrap, norm, t, ttest_1samp
from statsmodels.stats.multitest import multipletests


def means_table(scores: pd.DataFrame, by: Sequence[str] = ("method",)) -> pd.DataFrame:
    """Mean and 95 % bootstrap interval over images of every measure.

    Parameters
    ----------
    scores : DataFrame
        One row an image: the columns of ``by``, measure, v, value.
    by : sequence of str
        What a row of the table is.

    Returns
    -------
    DataFrame
        Columns of ``by``, measure, v, n (images), mean, low, high.
    """
    rows = []
    for key, group in scores[scores["measure"] != "invalid"].groupby(
        [*by, "measure", "v"], sort=False, observed=True
    ):
        values = group["value"].dropna().to_numpy()
        low, high = bootstrap_interval(values)
        rows.append((*key, len(values), values.mean(), low, high))
    return pd.DataFrame(rows, columns=[*by, "measure", "v", "n", "mean", "low", "high"])


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean (SciPy's), seeded.

    Parameters
    ----------
    values : ndarray
        ``(n,)``.
    seed : int
        Of the resampling.

    Returns
    -------
    tuple of float
        Low and high; both the mean where all values are alike, both NaN where there are fewer than two.
    """
    if len(values) < 2:
        return math.nan, math.nan
    if np.ptp(values) == 0:
        return float(values.mean()), float(values.mean())
    interval = bootstrap(
        (values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(interval.low), float(interval.high)


def simultaneous_intervals(
    samples: Sequence[np.ndarray], level: float = 0.95, seed: int = 0
) -> np.ndarray:
    """Bootstrap intervals of several means that hold all at once (Bonferroni), seeded.

    SciPy's percentile intervals are too narrow for few values, the more so far out in the tails. They are made
    wider by what Student's t adds to the normal quantile; Hesterberg (The American Statistician, 2015) expands their
    level by the same factor.

    Parameters
    ----------
    samples : sequence of ndarray
        ``(n,)`` each.
    level : float
        Confidence in all intervals together.
    seed : int
        Of the resampling.

    Returns
    -------
    ndarray
        ``(len(samples), 2)``: low and high of each; NaN where there are fewer than two values.
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
        wider = t.ppf(tail, n - 1) / norm.ppf(tail) * math.sqrt(n / (n - 1))
        intervals[those] = (means + wider * (np.stack(found) - means)).T
    return intervals


def clearness(
    values: np.ndarray, bound: float, interval: Sequence[float] | np.ndarray, level: float = 0.05
) -> float:
    """How far a mean is from a bound, in reaches of its interval towards it: beyond 1 the interval leaves it out.

    No further than 1 where too few values differ from the bound: fewer than a sign test needs at this level if they
    all agree. A bootstrap is sure of two values that agree, and the interval of values all alike has no width.

    Parameters
    ----------
    values : ndarray
        ``(n,)``.
    bound : float
        What the mean is compared with.
    interval : pair of float
        Low and high.
    level : float
        Of significance.

    Returns
    -------
    float
        Positive above the bound, negative below; 0 for fewer than two values.
    """
    if len(values) < 2 or values.mean() == bound:
        return 0.0
    mean = float(values.mean())
    reach = abs(mean - interval[0 if mean > bound else 1])
    clear = (mean - bound) / reach if reach else math.copysign(math.inf, mean - bound)
    few = 2.0 ** (1 - np.count_nonzero(values != bound)) >= level
    return min(max(clear, -1.0), 1.0) if few else clear


def averages(scores: pd.DataFrame) -> pd.DataFrame:
    """Average each image's measures over v, as Tables IV and V do with ROAD's curves.

    Parameters
    ----------
    scores : DataFrame
        One row an image, method, measure and v.

    Returns
    -------
    DataFrame
        One row an image, method and measure, now called ``mean <measure>``; v is 0.
    """
    curves = scores[scores["measure"] != "invalid"]
    keys = [column for column in curves.columns if column not in ("v", "value")]
    means = curves.groupby(keys, sort=False, observed=True, as_index=False)["value"].mean()
    return means.assign(measure="mean " + means["measure"].astype(str), v=0)


def in_order(table: pd.DataFrame, names: Iterable[str], column: str = "method") -> pd.DataFrame:
    """Put rows in an order of methods, or of another column's names, whatever order they were computed in."""
    place = {name: i for i, name in enumerate(names)}
    return table.sort_values(column, key=lambda found: found.map(place), kind="stable")


def paired_differences(
    scores: pd.DataFrame, methods: Sequence[str] = ("t-tame",), by: Sequence[str] = ("backbone",)
) -> pd.DataFrame:
    """Compare methods with every other on the images that both have scores of.

    Parameters
    ----------
    scores : DataFrame
        One row an image: the columns of ``by``, method, measure, v, image_id, value.
    methods : sequence of str
        The methods compared, where there are scores of them; two of these are compared once, the first with the second.
    by : sequence of str
        Compared within each of these.

    Returns
    -------
    DataFrame
        Columns of ``by``, measure, v, method, rival, n (images), difference (method minus rival), low, high (its 95 %
        bootstrap interval) and p (paired t-test, corrected by Holm for all comparisons of the same ``by``, whichever
        the method: who picks the best of several methods has looked at all their comparisons).
    """
    rows = []
    kept = scores[~scores["measure"].isin(["invalid", "confidence", "coverage"])]
    for key, group in kept.groupby([*by, "measure", "v"], sort=False, observed=True):
        wide = group.pivot_table(index="image_id", columns="method", values="value", sort=False)
        found = [method for method in methods if method in wide]
        for i, method in enumerate(found):
            for rival in wide.columns.drop(found[: i + 1]):
                both = wide[[method, rival]].dropna()
                differences = (both[method] - both[rival]).to_numpy()
                if len(differences):
                    low, high = bootstrap_interval(differences)
                    mean, p = differences.mean(), paired_p(differences)
                    rows.append((*key, method, rival, len(differences), mean, low, high, p))
    columns = [*by, "measure", "v", "method", "rival", "n", "difference", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=columns)
    if len(table):
        table["p"] = table.groupby(list(by), sort=False)["p"].transform(
            lambda p: multipletests(p, method="holm")[1]
        )
    return table


def paired_p(differences: np.ndarray) -> float:
    """Two-sided p of a paired t-test; 1 where nothing differs, or for fewer than two images."""
    if len(differences) < 2 or not differences.any():
        return 1.0
    if np.ptp(differences) == 0:
        return 2.0 ** (1 - len(differences))  # as a sign test: all one way
    return float(ttest_1samp(differences, 0.0).pvalue)
