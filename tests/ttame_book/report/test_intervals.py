"""Means, intervals and paired comparisons: what they say of few values, and of many comparisons."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.ttame_book.report.examples import scores
from ttame_book.report import intervals
from ttame_book.report.intervals import (
    averages,
    bootstrap_interval,
    clearness,
    holm,
    means_table,
    paired_differences,
    paired_p,
    simultaneous_intervals,
)

RNG = np.random.default_rng(0)
LOW, HIGH = RNG.normal(20, 3, 60), RNG.normal(40, 3, 60)


def table(**methods):
    rows = [
        ("demo_vgg", method, "ad", 15, f"i{i}", x)
        for method, values in methods.items()
        for i, x in enumerate(values)
    ]
    columns = ["backbone", "method", "measure", "v", "image_id", "value"]
    return pd.DataFrame(rows, columns=columns).replace({"method": {"tame": "t-tame"}})


def test_one_image_has_a_mean_and_no_interval():
    assert np.isnan(bootstrap_interval(np.array([3.0]))).all()
    assert bootstrap_interval(np.array([3.0, 3.0])) == (3, 3)
    assert np.isnan(simultaneous_intervals([np.array([3.0]), np.array([])])).all()
    means = means_table(table(tame=[7.0], rise=[1.0, 3.0]))
    assert means["mean"].tolist() == [7, 2] and means["n"].tolist() == [1, 2]
    assert means["low"].isna().tolist() == [True, False]
    differences = paired_differences(table(tame=[7.0], rise=[1.0, 3.0]))
    assert differences["difference"].tolist() == [6] and differences["low"].isna().all()


def test_simultaneous_intervals_are_those_of_each_sample_at_the_corrected_level():
    samples = [LOW, HIGH[:20], LOW - HIGH]
    together = simultaneous_intervals(samples)
    for sample, interval in zip(samples, together, strict=True):
        alone = simultaneous_intervals([sample], 1 - 0.05 / 3)[0]
        assert interval == pytest.approx(alone)
        plain = simultaneous_intervals([sample])[0]
        assert interval[0] < plain[0] < sample.mean() < plain[1] < interval[1]
    assert np.array_equal(together, simultaneous_intervals(samples))


def test_an_interval_is_students_where_values_are_normal():
    values = np.random.default_rng(3).normal(0, 1, 15)
    values = (values - values.mean()) / values.std(ddof=1)
    (low, high) = simultaneous_intervals([values])[0]
    half = 2.145 / math.sqrt(15)  # Student's t of 14 degrees
    assert (-low, high) == pytest.approx((half, half), rel=0.1)


def test_intervals_hold_together_as_often_as_they_say():
    rng, missed = np.random.default_rng(1), 0
    for _ in range(100):
        found = simultaneous_intervals(list(rng.normal(0, 1, (20, 15))))
        missed += ((found[:, 0] > 0) | (found[:, 1] < 0)).any()
    assert missed <= 11  # 5 expected; more happens once in two hundred


def test_clearness_counts_reaches_of_the_interval():
    values = np.arange(1.0, 13.0)  # mean 6.5
    assert clearness(values, 0, (4, 10)) == pytest.approx(6.5 / 2.5)
    assert clearness(values, 8, (4, 10)) == pytest.approx(-1.5 / 3.5)
    assert clearness(-values, 0, (-10, -4)) == pytest.approx(-6.5 / 2.5)
    assert clearness(values, 6.5, (4, 10)) == 0


@pytest.mark.parametrize("sign", [1, -1])
def test_few_values_that_agree_are_not_clear(sign):
    alike = sign * np.full(6, 5.0)
    assert clearness(alike, 0, (5 * sign, 5 * sign), 0.05) == sign * math.inf
    assert clearness(alike, 0, (5 * sign, 5 * sign), 0.03) == sign  # 2 ** -5 is more
    assert clearness(alike[:1], 0, (math.nan, math.nan)) == 0
    rare = np.r_[np.zeros(300), alike[:5]]
    assert clearness(rare, 0, (sign * 0.01, sign * 0.01)) == sign


def test_few_images_that_agree_are_no_proof():
    assert paired_p(np.array([5.0, 5.0])) == 0.5
    assert paired_p(np.full(20, 5.0)) < 1e-5
    assert paired_p(np.zeros(20)) == 1 and paired_p(np.array([3.0])) == 1


def test_paired_differences_are_of_shared_images_and_corrected():
    methods = {"tame": LOW, "rise": HIGH[:20], "iia": LOW + RNG.normal(0, 1, 60)}
    found = paired_differences(table(**methods)).set_index("rival")
    rise = found.loc["rise"]
    assert rise["n"] == 20
    assert rise["difference"] == pytest.approx((LOW[:20] - HIGH[:20]).mean())
    assert rise["low"] < rise["difference"] < rise["high"] < 0
    assert rise["p"] < 1e-6 < found.loc["iia", "p"]
    alone = {
        rival: paired_differences(table(tame=LOW, **{rival: methods[rival]}))["p"][0]
        for rival in ("rise", "iia")
    }
    assert found.loc["iia", "p"] == pytest.approx(alone["iia"])  # Holm: the largest stays
    assert rise["p"] == pytest.approx(2 * alone["rise"])  # the smaller is doubled


def test_holms_correction_of_four_by_hand():
    p = np.array([0.03, 0.005, 0.8, 0.02])
    # 4 x 0.005; 3 x 0.02; 2 x 0.03 and no less than that; 0.8; none more than 1
    assert holm(p) == pytest.approx([0.06, 0.02, 0.8, 0.06])
    assert holm(np.array([0.5, 0.6])).tolist() == [1, 1]


def test_methods_are_compared_with_each_other_once_and_corrected_together():
    methods = {"tame": LOW, "warm": LOW + RNG.normal(0, 1, 60), "rise": LOW + RNG.normal(1, 3, 60)}
    scores = table(**methods)
    found = paired_differences(scores, ["t-tame", "warm", "absent"])
    pairs = [("t-tame", "warm"), ("t-tame", "rise"), ("warm", "rise")]
    assert list(zip(found["method"], found["rival"], strict=True)) == pairs
    assert found["difference"].tolist() == pytest.approx(
        [(methods[m.removeprefix("t-")] - methods[r]).mean() for m, r in pairs]
    )
    alone = [paired_p(methods[m.removeprefix("t-")] - methods[r]) for m, r in pairs]
    least = int(np.argmin(alone))
    assert found["p"][least] == pytest.approx(3 * alone[least]) and found["p"][least] < 0.3


@pytest.mark.slow
def test_false_alarms_are_as_rare_as_corrected_for(monkeypatch):
    """With nothing between the methods, one table in twenty holds a significant difference at most."""
    monkeypatch.setattr(intervals, "bootstrap_interval", lambda values: (0, 0))  # p needs none
    rng, alarms = np.random.default_rng(1), 0
    for _ in range(15):
        methods = {name: rng.normal(0, 1, 30) for name in ("tame", *"abcdefghijkl")}
        alarms += (paired_differences(table(**methods))["p"] < 0.05).any()
    assert alarms <= 3  # 0.75 expected; more happens once in 150, and uncorrected seven


def test_means_and_their_intervals():
    means = means_table(scores(), by=["backbone", "method"])
    row = means[(means["backbone"] == "a") & (means["method"] == "grad-cam")].iloc[0]
    assert (row["n"], row["mean"]) == (12, 21.5)
    assert 20 <= row["low"] < 21.5 < row["high"] <= 23
    assert bootstrap_interval(np.full(5, 3.0)) == (3, 3)


def test_the_interval_covers_a_known_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.exponential(1.0, 100))
        covered += low <= 1.0 <= high
    assert 0.89 <= covered / 200 <= 0.99


@pytest.mark.parametrize("n", [2, 5, 60])
def test_intervals_and_p_are_scipys(n):
    values = np.random.default_rng(n).normal(1.0, 3.0, n)
    drawn = {"n_resamples": 2000, "method": "percentile", "rng": np.random.default_rng(0)}
    expected = stats.bootstrap((values,), np.mean, **drawn).confidence_interval
    assert bootstrap_interval(values) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert paired_p(values) == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue, rel=1e-9)


def test_averages_over_v_are_taken_image_by_image():
    rows = [("t-tame", "morf", v, image, v + n) for v in (10, 30) for n, image in enumerate("ab")]
    table = averages(pd.DataFrame(rows, columns=["method", "measure", "v", "image_id", "value"]))
    assert table["measure"].tolist() == ["mean morf"] * 2
    assert table["value"].tolist() == [20, 21]
