"""From scores, one row an image, to means with their intervals."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import bootstrap


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
        Low and high; both the mean where all values are alike or there is only one.
    """
    if len(values) < 2 or np.ptp(values) == 0:
        return float(values.mean()), float(values.mean())
    interval = bootstrap(
        (values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(interval.low), float(interval.high)


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
