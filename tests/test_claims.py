"""Verdicts and paired comparisons: computed from scores, and flipped when the scores are."""

import numpy as np
import pandas as pd
import pytest

from ttame_core.claims import CLAIMS, Cell, Claim, Comparison, evidence, family, verdicts
from ttame_core.statistics import paired_differences, paired_p


def rows(backbone, method, measure, v, values):
    return [(backbone, method, measure, v, f"i{i}", x) for i, x in enumerate(values)]


def table(*groups):
    columns = ["backbone", "method", "measure", "v", "image_id", "value"]
    return pd.DataFrame([r for g in groups for r in g], columns=columns)


RNG = np.random.default_rng(0)
LOW, HIGH, NOISE = RNG.normal(20, 3, 60), RNG.normal(40, 3, 60), RNG.normal(20, 3, 60)
BEST = Claim(0, "t-tame is best", best=(("vgg", "t-tame", "ad", 15, ()),))


def verdict(claim, *groups):
    return verdicts(table(*groups), [claim])["verdict"][0]


def ad(method, values, backbone="demo_vgg"):
    return rows(backbone, method, "ad", 15, values)


def test_a_verdict_flips_when_its_cells_are_swapped():
    assert verdict(BEST, ad("t-tame", LOW), ad("rise", HIGH)) == "confirmed"
    assert verdict(BEST, ad("t-tame", HIGH), ad("rise", LOW)) == "not confirmed"


def test_a_verdict_is_undecided_where_images_are_few_or_alike():
    assert verdict(BEST, ad("t-tame", LOW), ad("rise", NOISE)).startswith("undecided")
    assert verdict(BEST, ad("t-tame", LOW[:2]), ad("rise", [30, 10])).startswith("undecided")


def test_one_rival_ahead_is_enough_and_controls_do_not_count():
    groups = ad("t-tame", LOW), ad("rise", HIGH)
    assert verdict(BEST, *groups, ad("grad-cam", LOW - 10)) == "not confirmed"
    assert verdict(BEST, *groups, ad("all-ones", LOW - 10)) == "confirmed"
    assert verdict(BEST, *groups, ad("ablation: no skip", LOW - 10)) == "confirmed"


def test_a_claim_of_more_is_judged_the_other_way():
    claim = Claim(0, "", best=(("vgg", "t-tame", "ic", 15, ()),))
    groups = rows("demo_vgg", "t-tame", "ic", 15, HIGH), rows("demo_vgg", "rise", "ic", 15, LOW)
    assert verdict(claim, *groups) == "confirmed"


def test_another_family_does_not_answer():
    assert verdict(BEST, ad("t-tame", LOW, "demo_vit"), ad("rise", HIGH, "demo_vit")) == (
        "not applicable here"
    )


def test_exceptions():
    claim = Claim(
        0, "", best=(("vgg", "t-tame", "ad", 15, ()), ("vgg", "t-tame", "ad", 50, ())), exceptions=1
    )
    lost = rows("demo_vgg", "t-tame", "ad", 50, HIGH), rows("demo_vgg", "rise", "ad", 50, LOW)
    assert verdict(claim, ad("t-tame", LOW), ad("rise", HIGH), *lost) == "confirmed"
    assert verdict(claim, ad("t-tame", HIGH), ad("rise", LOW), *lost) == "not confirmed"


def test_differences_of_differences_and_numbers():
    claim = next(c for c in CLAIMS if c.number == 9)
    parts = []
    for backbone, harm in (("demo_resnet", 30), ("demo_vgg", 15), ("demo_vit", 1)):
        parts.append(rows(backbone, "ablation: matched", "ad", 50, LOW))
        parts.append(rows(backbone, "ablation: mismatched", "ad", 50, LOW + harm + NOISE / 10))
    assert verdict(claim, *parts) == "confirmed"
    swapped = [
        [
            ("demo_vgg" if b == "demo_resnet" else "demo_resnet" if b == "demo_vgg" else b, *r)
            for b, *r in p
        ]
        for p in parts
    ]
    assert verdict(claim, *swapped) == "not confirmed"
    below = Claim(0, "", tests=(Comparison(Cell("vgg", "whole", "rank correlation"), 0.5, True),))
    assert (
        verdict(below, rows("demo_vgg", "whole", "rank correlation", 0, LOW / 100)) == "confirmed"
    )
    assert (
        verdict(below, rows("demo_vgg", "whole", "rank correlation", 0, HIGH / 50))
        == "not confirmed"
    )


def test_counts_need_no_test_and_a_claim_with_a_part_missing_is_not_judged():
    claim = next(c for c in CLAIMS if c.number == 11)

    def of(masks, backbones=("demo_vgg", "demo_resnet", "demo_vit")):
        counts = {"t-tame": 1.0, "rise": masks}
        return [rows(b, m, "forwards", 0, [n]) for b in backbones for m, n in counts.items()]

    assert verdict(claim, *of(500.0)) == "confirmed"
    assert verdict(claim, *of(50.0)) == "not confirmed"
    assert verdict(claim, *of(500.0, ["demo_vgg"])) == "not applicable here"


def test_few_images_that_agree_are_no_proof():
    assert paired_p(np.array([5.0, 5.0])) == 0.5
    assert paired_p(np.full(20, 5.0)) < 1e-5
    assert paired_p(np.zeros(20)) == 1 and paired_p(np.array([3.0])) == 1


def test_the_papers_twelve_claims_are_there_once():
    assert [c.number for c in CLAIMS] == list(range(1, 13))
    assert all(c.best or c.tests for c in CLAIMS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vgg16", "vgg"),
        ("demo_resnet", "resnet"),
        ("vit_b_16", "vit"),
        ("efficientnet_lite0", "resnet"),
        ("swin_t", None),
    ],
)
def test_families(name, expected):
    assert family(name) == expected


def test_evidence_takes_max_pool_taps_and_the_tables_of_the_paper():
    ablated = table(
        *[
            rows("demo_vgg", m, "ad", 15, [1.0])
            for m in ("one layer, max-pool taps", "one layer, conv taps", "seed 1")
        ]
    )
    ablated["table"] = ["VI", "VI", "seeds"]
    costs = pd.DataFrame({"backbone": ["demo_vgg"], "method": ["rise"], "forwards": [500.0]})
    found = evidence(table(), ablated, table(), costs)
    assert found["method"].tolist() == [
        "ablation: one layer",
        "ablation: one layer, conv taps",
        "rise",
    ]
    assert found["measure"].tolist() == ["ad", "ad", "forwards"]


def test_paired_differences_are_of_shared_images_and_corrected():
    groups = ad("t-tame", LOW), ad("rise", HIGH[:20]), ad("grad-cam", LOW + RNG.normal(0, 1, 60))
    found = paired_differences(table(*groups)).set_index("rival")
    assert found.loc["rise", "n"] == 20
    assert found.loc["rise", "difference"] == pytest.approx((LOW[:20] - HIGH[:20]).mean())
    assert (
        found.loc["rise", "low"] < found.loc["rise", "difference"] < found.loc["rise", "high"] < 0
    )
    assert found.loc["rise", "p"] < 1e-6 < found.loc["grad-cam", "p"]
    alone = paired_differences(table(*groups[::2])).set_index("rival")
    assert found.loc["grad-cam", "p"] == pytest.approx(
        alone.loc["grad-cam", "p"]
    )  # Holm: the largest stays
    assert (
        found.loc["rise", "p"] > paired_differences(table(*groups[:2]))["p"][0]
    )  # the smaller is doubled


def test_false_alarms_are_as_rare_as_corrected_for():
    """With nothing between the methods, one table in twenty holds a significant difference at most."""
    rng, alarms = np.random.default_rng(1), 0
    for _ in range(30):
        groups = [ad(m, rng.normal(0, 1, 30)) for m in ("t-tame", "a", "b", "c", "d")]
        alarms += (paired_differences(table(*groups))["p"] < 0.05).any()
    assert alarms <= 6  # 1.5 expected; more than 6 in 30 happens once in a thousand
