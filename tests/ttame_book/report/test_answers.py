"""Sentences are made from the tests' outcomes, not from the means."""

import pandas as pd
import pytest

from ttame_book.report.answers import against, best_variant, listed, rows_of, standing


def difference(rival, apart, p, measure="ad", v=50, method="t-tame", backbone="net"):
    return {
        **{"backbone": backbone, "measure": measure, "v": v, "method": method, "rival": rival},
        **{"n": 40, "difference": apart, "low": apart - 1.5, "high": apart + 2.5, "p": p},
    }


def test_outcomes_follow_the_measures_direction_and_leave_out_what_is_no_rival():
    table = pd.DataFrame(
        [
            difference("rise", -3, 0.01),
            difference("grad-cam", 3, 0.01),
            difference("iia", -9, 0.2),
            difference("rise", 5, 0.01, "ic"),
            difference("random", -50, 0),
            difference("t-tame-top", 5, 0),
            difference("rise", 5, 0, method="t-tame-top"),
            difference("rise", 5, 0, backbone="other"),
        ]
    )
    rows = rows_of(table, "net", "t-tame", "ad", 50)
    assert dict(zip(rows["rival"], rows["outcome"], strict=True)) == {
        **{"rise": "better", "grad-cam": "worse", "iia": "level"}
    }
    assert standing(rows) == "better than 1 of 3 rivals, level with 1 and worse than 1"
    (more,) = rows_of(table, "net", "t-tame", "ic", 50)["outcome"]
    assert more == "better"


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (["better"] * 3, "better than all 3 rivals"),
        (["level"] * 2, "level with all 2 rivals"),
        (["worse", "level", "worse"], "level with 1 of 3 rivals and worse than 2"),
    ],
)
def test_a_standing_counts_each_outcome_once(found, told):
    assert standing(pd.DataFrame({"outcome": found})) == told


def test_a_comparison_says_by_how_much_how_sure_and_of_how_many():
    row = pd.Series(difference("rise", -3.04, 0.01) | {"outcome": "better"})
    assert against(row) == "better by 3.0 ±2.0 points, n = 40"
    row["outcome"] = "level"
    assert against(row) == "level after correction: 3.0 ±2.0 points less, n = 40"
    row["high"] = 0.5
    assert against(row) == "level: 3.0 ±2.5 points less, n = 40"
    row["difference"] = 0.0
    assert against(row) == "level: 0.0 ±2.5 points apart, n = 40"


def test_the_best_variant_is_one_beyond_the_paper_by_the_measures_direction():
    means = pd.DataFrame(
        [
            ("net", "t-tame", "ad", 50, 1.0),
            ("net", "l-cam-img", "ad", 50, 0.0),
            ("net", "t-tame-top", "ad", 50, 8.0),
            ("net", "t-tame-matched", "ad", 50, 7.0),
            ("net", "t-tame-top", "ic", 50, 8.0),
            ("net", "t-tame-matched", "ic", 50, 7.0),
            ("other", "t-tame-rise", "ad", 50, 0.0),
        ],
        columns=["backbone", "method", "measure", "v", "mean"],
    ).assign(n=40)
    assert best_variant(means, "net") == "t-tame-matched"
    assert best_variant(means, "net", "ic") == "t-tame-top"


def test_parts_are_joined_as_one_writes():
    assert [listed(list("abc")[:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
