"""Verdicts: computed from scores, and no longer confirmed where the scores say otherwise."""

import numpy as np
import pandas as pd
import pytest

from ttame_book.report.claims import CLAIMS, FAMILIES, RIVALS, Cell, Claim, Comparison, _best
from ttame_book.report.names import shown_name
from ttame_book.report.verdicts import (
    compare,
    deciding_comparisons,
    evidence,
    interval_in_numbers,
    verdicts,
)

COLUMNS = ["backbone", "table", "method", "measure", "v", "image_id", "value"]
FIRST = ("proposed", "two layers", "one layer", "no skip")
TABLES = dict.fromkeys(FIRST, "VI") | dict.fromkeys(("matched", "mismatched"), "VII")
TABLES |= dict.fromkeys(("seed 0", "seed 1"), "seeds")
"""The table of each row of the ablations."""
YES, NO, OPEN, ABSENT = (
    "confirmed",
    "not confirmed",
    "undecided at this sample size",
    "not applicable here",
)
MASKED = [(measure, v) for measure in ("ad", "ic") for v in (100, 50, 15)]
CURVES = [(measure, v) for measure in ("morf", "lerf") for v in range(10, 100, 10)]
BACKBONES = ("demo_vgg", "demo_resnet", "demo_vit")
NAMES = dict(zip(FAMILIES, BACKBONES, strict=True))


def ranked(backbone, measure, v):
    """Methods from best to worst, as the paper has them."""
    ahead = {
        "demo_vgg": ["rise", "t-tame"] if v == 100 or "lerf" in measure else ["t-tame"],
        "demo_resnet": ["t-tame"],
        "demo_vit": ["t-tame", "transformer-lrp"],
    }[backbone]
    if backbone == "demo_resnet" and ("mean" in measure or (0 < v < 50 and measure == "morf")):
        ahead = ["rise", "t-tame"]
    if backbone == "demo_resnet" and (measure, v) == ("ad", 100):
        ahead = ["score-cam", "t-tame"]
    if backbone == "demo_vit" and "lerf" in measure and v < 80:
        ahead = ["rise", "t-tame"]
    if backbone == "demo_vit" and (measure, v) == ("morf", 10):
        ahead = ["transformer-lrp", "t-tame"]
    return [*ahead, *(method for method in RIVALS if method not in ahead)]


def as_in_the_paper():
    """Mean of every cell, such that every claim is true."""
    means = {}
    for b in BACKBONES:
        for measure, v in [*MASKED, *CURVES, ("mean morf", 0), ("mean lerf", 0)]:
            down = measure == "ad" or "morf" in measure
            for place, method in enumerate(ranked(b, measure, v)):
                means[b, method, measure, v] = 10 + 8 * place if down else 90 - 8 * place
        for measure, v in MASKED:
            good = (1, -1)[measure == "ic"]
            rows = {
                "proposed": 20,
                "two layers": 22 if v < 100 else 18,
                "one layer": 30,
                "no skip": 40,
            }
            for name, value in rows.items():
                means[b, name, measure, v] = 50 + good * value
        means[b, "matched", "ad", 50] = 20
        harm = {"demo_vgg": 15, "demo_resnet": 30, "demo_vit": 1}[b]
        means[b, "mismatched", "ad", 50] = 20 + harm
        for part in ("whole backbone", "whole attention"):
            means[b, part, "rank correlation", 0] = 0.2
        means[b, "t-tame", "forwards", 0], means[b, "rise", "forwards", 0] = 1, 500
        means[b, "t-tame", "coverage", 100] = 60 if b == "demo_vit" else 30
    return means


def images_of(means, count=20, seed=0):
    """Scores with these means; counts have one row and no noise."""
    rng, rows = np.random.default_rng(seed), []
    for key, mean in means.items():
        exact = key[2] == "forwards"
        noise = [0] if exact else rng.normal(0, 0.02 if mean < 1 else 1, count)
        backbone, method, *place = key
        cell = (backbone, TABLES.get(method, ""), method, *place)
        rows += [(*cell, f"i{i}", mean + e) for i, e in enumerate(noise)]
    return pd.DataFrame(rows, columns=COLUMNS)


def verdict(number, means):
    claim = CLAIMS[number - 1]
    measures = {test.left.measure for test in claim.tests}
    asked = {key: mean for key, mean in means.items() if key[2] in measures}
    return judged(claim, images_of(asked))["verdict"]


def judged(claim, scores, names=NAMES):
    return verdicts(compare(scores, names, [claim]), names, [claim]).iloc[0]


def swapped(means, one, other):
    return means | {one: means[other], other: means[one]}


def test_all_claims_are_confirmed_by_scores_as_the_paper_has_them():
    found = verdicts(compare(images_of(as_in_the_paper()), NAMES), NAMES)
    assert found["number"].tolist() == list(range(1, 13))
    assert set(found["verdict"]) == {YES}, found[["number", "verdict", "decided by"]].to_string()
    assert (found["otherwise"] == 0).drop(2).all() and found["otherwise"][2] == 1  # Score-CAM's


@pytest.mark.parametrize(
    ("number", "backbone", "measure", "v", "one", "other"),
    [
        (1, "demo_vgg", "ad", 50, "t-tame", "iia"),
        (1, "demo_vgg", "ic", 15, "t-tame", "rise"),
        (1, "demo_vgg", "ic", 100, "t-tame", "rise"),
        (2, "demo_vgg", "mean morf", 0, "t-tame", "grad-cam"),
        (2, "demo_vgg", "mean lerf", 0, "t-tame", "rise"),
        (2, "demo_vgg", "mean lerf", 0, "t-tame", "grad-cam"),
        (3, "demo_resnet", "ad", 50, "t-tame", "grad-cam"),
        (3, "demo_resnet", "ic", 100, "t-tame", "iia"),
        (4, "demo_resnet", "mean morf", 0, "t-tame", "rise"),
        (4, "demo_resnet", "mean lerf", 0, "rise", "iia"),
        (4, "demo_resnet", "morf", 50, "t-tame", "rise"),
        (5, "demo_vit", "ic", 100, "t-tame", "transformer-lrp"),
        (5, "demo_vit", "ad", 15, "t-tame", "rise"),
        (6, "demo_vit", "morf", 20, "t-tame", "iia"),
        (6, "demo_vit", "mean lerf", 0, "t-tame", "rise"),
        (6, "demo_vit", "mean lerf", 0, "t-tame", "grad-cam"),
        (6, "demo_vit", "lerf", 90, "t-tame", "rise"),
        (7, "demo_vgg", "ic", 100, "two layers", "one layer"),
        (7, "demo_resnet", "ad", 15, "two layers", "one layer"),
        (8, "demo_vgg", "ad", 50, "proposed", "no skip"),
        (8, "demo_resnet", "ic", 15, "proposed", "no skip"),
        (8, "demo_vit", "ad", 15, "proposed", "no skip"),
    ],
)
@pytest.mark.slow
def test_a_claim_falls_where_two_methods_change_places(number, backbone, measure, v, one, other):
    first, second = ((backbone, method, measure, v) for method in (one, other))
    assert verdict(number, swapped(as_in_the_paper(), first, second)) == NO


def test_a_difference_that_seeds_make_too_is_undecided():
    means = as_in_the_paper()
    assert verdict(8, means) == YES
    for seed, value in ((0, 60), (1, 95)):  # 35 apart; without skip AD(15) is 20 more
        means["demo_vgg", f"seed {seed}", "ad", 15] = value
    assert verdict(8, means) == OPEN
    means["demo_vgg", "seed 1", "ad", 15] = 65
    assert verdict(8, means) == YES


def test_a_lead_that_would_go_below_chance_is_not_asked_for():
    means = as_in_the_paper() | {("demo_vit", "transformer-lrp", "morf", 30): 13}
    scores = images_of(means)
    worse = images_of(
        means | {("demo_vit", "t-tame", "morf", 90): 90}
    )  # whatever the lead, not best
    for of, chance, expected, reason in (
        (scores, 10, ABSENT, "below chance: Small ViT, MoRF(30): T-TAME"),
        (scores, 0.1, NO, "Small ViT, MoRF(30): T-TAME"),
        (worse, 10, NO, "Small ViT, MoRF(90): T-TAME"),
    ):
        compared = compare(of, NAMES, chance={"demo_vit": chance})
        judged = verdicts(compared, NAMES).set_index("number").loc[6]
        assert judged["verdict"] == expected and judged["decided by"].startswith(reason)
        row = deciding_comparisons(compared).set_index("number").loc[6]
        assert (row["verdict"], row["outcome"] == "below chance") == (expected, expected == ABSENT)


@pytest.mark.parametrize(
    ("number", "cells", "expected"),
    [
        (4, {("t-tame", "morf", 60): 9.5, ("rise", "morf", 60): 9.5}, ABSENT),  # nothing is left
        (4, {("t-tame", "morf", 60): 10.5, ("rise", "morf", 60): 10.5}, OPEN),
        (4, {("t-tame", "morf", 60): 19, ("rise", "morf", 60): 9.5}, NO),
        (1, {("t-tame", "ad", 50): 9.5, ("rise", "ad", 50): 9.5}, OPEN),  # a drop may well be less
    ],
)
def test_none_is_asked_to_be_better_than_a_rival_at_chance(number, cells, expected):
    name = {1: "demo_vgg", 4: "demo_resnet"}[number]
    means = as_in_the_paper() | {(name, *cell): mean for cell, mean in cells.items()}
    claim = CLAIMS[number - 1]
    compared = compare(images_of(means, seed=1), NAMES, [claim], chance={name: 10})
    assert verdicts(compared, NAMES, [claim])["verdict"].tolist() == [expected]


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (6, {("demo_vit", "transformer-lrp", "morf", 30): 13}),  # 3 points are not far
        (9, {("demo_resnet", "mismatched", "ad", 50): 38}),  # 3 points more than the VGG
        (9, {("demo_vit", "mismatched", "ad", 50): 60}),
        (10, {("demo_vit", "whole backbone", "rank correlation", 0): 0.8}),
        (10, {("demo_vgg", "whole attention", "rank correlation", 0): 0.8}),
        (11, {("demo_resnet", "rise", "forwards", 0): 99}),
        (11, {("demo_vit", "t-tame", "forwards", 0): 2}),
        (12, {("demo_vit", "t-tame", "coverage", 100): 20}),
        (12, {("demo_vgg", "t-tame", "coverage", 100): 80}),
    ],
)
def test_a_claim_falls_with_a_number(number, change):
    assert verdict(number, as_in_the_paper() | change) == NO


@pytest.mark.parametrize(
    ("number", "first", "second"),
    [
        (4, ("demo_resnet", "t-tame", "morf", 50), ("demo_resnet", "grad-cam", "morf", 50)),
        (6, ("demo_vit", "t-tame", "morf", 10), ("demo_vit", "iia", "morf", 10)),
        (8, *(("demo_vit", m, "ad", 50) for m in ("proposed", "no skip"))),
    ],
)
def test_what_a_claim_does_not_say_is_not_held_against_it(number, first, second):
    assert verdict(number, swapped(as_in_the_paper(), first, second)) == YES


def test_score_cam_may_win_one_cell_and_no_other_method_any():
    def ad_of(method, v, value):
        return {("demo_resnet", method, "ad", v): value}

    means = as_in_the_paper()  # AD(100): Score-CAM 10, T-TAME 18; AD(50): T-TAME 10
    everywhere = means | ad_of("score-cam", 100, 30)
    assert verdict(3, everywhere) == YES
    assert verdict(3, means | ad_of("score-cam", 50, 2)) == NO  # a second cell
    assert verdict(3, everywhere | ad_of("score-cam", 50, 2)) == YES
    assert verdict(3, everywhere | ad_of("iia", 50, 2)) == NO
    assert verdict(3, means | ad_of("iia", 100, 2)) == NO  # T-TAME is third


@pytest.mark.parametrize("better", [True, False])
def test_mixed_is_neither_all_better_nor_all_worse(better):
    means = as_in_the_paper()
    for (b, method, measure, v), value in means.items():
        if method == "two layers":
            worse = 2 if (measure == "ad") == better else -2
            means[b, "proposed", measure, v] = value - worse
    assert verdict(7, means) == NO
    same = {k: means[k[0], "two layers", *k[2:]] for k in means if "proposed" in k[1]}
    assert verdict(7, means | same) == OPEN


@pytest.mark.parametrize(
    ("number", "missing"),
    [
        (1, ("demo_vgg", "rise", "ad", 100)),
        (2, ("demo_vgg", "t-tame", "mean lerf", 0)),
        (3, ("demo_resnet", "t-tame", "ic", 15)),
        (4, ("demo_resnet", "t-tame", "morf", 90)),
        (5, ("demo_vit", "t-tame", "ad", 100)),
        (6, ("demo_vit", "transformer-lrp", "morf", 30)),
        (7, ("demo_resnet", "two layers", "ic", 50)),
        (8, ("demo_vit", "no skip", "ad", 15)),
        (9, ("demo_vgg", "matched", "ad", 50)),
        (10, ("demo_resnet", "whole attention", "rank correlation", 0)),
        (11, ("demo_vit", "rise", "forwards", 0)),
        (12, ("demo_vgg", "t-tame", "coverage", 100)),
    ],
)
@pytest.mark.slow
def test_a_claim_of_which_a_part_is_missing_is_not_judged(number, missing):
    means = as_in_the_paper()
    del means[missing]
    claim = CLAIMS[number - 1]
    found = judged(claim, images_of(means))
    assert found["verdict"] == ABSENT
    assert found["decided by"].startswith("missing: ")
    assert shown_name(missing[0]) in found["decided by"]
    assert found["otherwise"] == 0 or number == 3


def test_an_edition_without_a_family_says_so():
    means = {key: mean for key, mean in as_in_the_paper().items() if key[0] != "demo_vgg"}
    names = {family: name for family, name in NAMES.items() if family != "vgg"}
    found = verdicts(compare(images_of(means), names), names).set_index("number")
    assert [n for n in found.index if found["verdict"][n] == ABSENT] == [1, 2, 7, 8, 9, 10, 11, 12]
    assert "no stand-in for VGG-16" in found["decided by"][7]


BEST = Claim(0, "T-TAME is best", tuple(_best("vgg", "t-tame", [("ad", 15)])))
RNG = np.random.default_rng(0)
LOW, HIGH, NOISE = RNG.normal(20, 3, 60), RNG.normal(40, 3, 60), RNG.normal(0, 3, 60)


def ad(measure="ad", backbone="demo_vgg", **methods):
    rows = [
        (backbone, TABLES.get(method, ""), method, measure, 15, f"i{i}", value)
        for given, values in methods.items()
        for method in [given.replace("_", "-").replace("tame", "t-tame")]
        for i, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def of_best(**methods):
    return judged(BEST, ad(**methods))["verdict"]


def test_controls_and_ablations_are_no_rivals():
    assert of_best(tame=LOW, rise=HIGH) == YES
    assert of_best(tame=LOW, rise=HIGH, grad_cam=LOW - 10) == NO
    assert of_best(tame=LOW, rise=HIGH, all_ones=LOW - 10) == YES
    assert of_best(tame=LOW, rise=HIGH, **{"no skip": LOW - 10}) == YES
    namesake = ad(rise=LOW - 10).assign(table="VI")  # a row of an ablation, whatever its name
    assert judged(BEST, pd.concat([ad(tame=LOW, rise=HIGH), namesake]))["verdict"] == YES


def test_the_comparisons_of_a_claim_are_corrected_for():
    standard = (NOISE - NOISE.mean()) / NOISE.std()
    close = LOW + standard + 2.5 / np.sqrt(60)  # 2.5 standard errors: clear alone, not among seven
    assert of_best(tame=LOW, rise=close) == YES
    names = ("l-cam-img", "grad-cam", "grad-cam++", "score-cam", "ablation-cam", "iia")
    others = {name: HIGH for name in names}
    assert of_best(tame=LOW, **others) == YES
    found = judged(BEST, ad(tame=LOW, rise=close, **others))
    assert found["verdict"] == OPEN
    assert found[["as claimed", "otherwise", "undecided"]].tolist() == [6, 0, 1]
    against = judged(BEST, ad(tame=close, rise=LOW, **others))
    assert (against["verdict"], of_best(tame=close, rise=LOW)) == (OPEN, NO)


def test_few_images_decide_nothing():
    for few in (1, 2, 5):
        assert of_best(tame=LOW[:few], rise=HIGH[:few]) == OPEN
    assert of_best(tame=LOW[:8], rise=HIGH[:8]) == YES
    assert of_best(tame=np.zeros(5), rise=np.full(5, 9.0)) == OPEN  # all alike: no width
    assert of_best(tame=np.zeros(8), rise=np.full(8, 9.0)) == YES
    many = {name: np.full(8, 9.0) for name in RIVALS[1:]}
    assert of_best(tame=np.zeros(8), **many) == OPEN  # 2 ** -7 is more than 0.05 / 8
    assert of_best(tame=LOW, rise=LOW) == OPEN


def test_increases_in_confidence_of_few_images():
    claim = Claim(0, "", tuple(_best("vgg", "t-tame", [("ic", 15)])))

    def of(won, lost, neither):
        tame = [100.0] * won + [0.0] * (lost + neither)
        rise = [0.0] * won + [100.0] * lost + [0.0] * neither
        return judged(claim, ad("ic", tame=tame, rise=rise))["verdict"]

    assert (of(5, 0, 0), of(5, 0, 300), of(8, 0, 0), of(20, 0, 300)) == (OPEN, OPEN, YES, YES)
    assert (of(0, 8, 0), of(8, 7, 0), of(30, 5, 100), of(5, 30, 100)) == (NO, OPEN, YES, NO)


def test_counts_are_exact():
    def of(left, less, bound):
        test = Comparison(Cell("vgg", "t-tame", "forwards"), None, less, bound, exact=True)
        row = ("vgg16", "", "t-tame", "forwards", 0, "cost", left)
        scores = pd.DataFrame([row], columns=COLUMNS)
        return judged(Claim(0, "", (test,)), scores, {"vgg": "vgg16"})

    assert of(1.0, True, 1)["verdict"] == of(100.0, False, 100)["verdict"] == YES
    assert of(1.02, True, 1)["verdict"] == of(99.9, False, 100)["verdict"] == NO
    assert of(8000.0, False, 100)["decided by"] == "VGG-16, forwards: T-TAME 8,000; claimed ≥ 100"


def test_what_decides_is_the_clearest_against_or_the_least_clear():
    def by(**methods):
        return judged(BEST, ad(**methods))["decided by"]

    near, far = LOW + 3 + NOISE / 10, LOW + 20 + NOISE / 10
    assert by(tame=LOW, rise=far, iia=near).startswith("Small VGG, AD(15): T-TAME 20.23, IIA 23.21")
    assert "RISE" in by(tame=LOW, rise=LOW + NOISE, iia=near)
    assert "IIA" in by(tame=LOW, rise=LOW - 3 + NOISE / 10, iia=LOW - 20 + NOISE / 10)
    flat = by(tame=np.full(20, 6.25), iia=np.full(20, 7.0))
    assert flat == (
        "Small VGG, AD(15): T-TAME 6.25, IIA 7.00; difference −0.75 [−0.75, −0.75]; claimed < 0"
    )


def test_the_long_table_holds_every_comparison():
    table = compare(ad(tame=LOW, rise=HIGH[:20], iia=LOW), NAMES, [BEST]).set_index("right")
    rise, iia = table.loc["rise"], table.loc["iia"]
    assert rise["images"] == 20
    assert rise["left_mean"] == pytest.approx(LOW[:20].mean())  # on the shared images
    assert rise["right_mean"] == pytest.approx(HIGH[:20].mean())
    assert rise["difference"] == pytest.approx(rise["left_mean"] - rise["right_mean"])
    assert rise["low"] < rise["difference"] < rise["high"] < 0
    assert (rise["outcome"], rise["claimed"], iia["outcome"]) == ("as claimed", "< 0", "undecided")
    claims = compare(images_of(as_in_the_paper()), NAMES)
    assert claims.loc[claims["claim"] == 9, "left"].tolist() == [
        "mismatched minus matched on Small ResNet",
        "mismatched minus matched on Small VGG",
    ]
    assert claims.loc[claims["claim"] == 9, "difference"].round().tolist() == [15, 14]
    assert (claims["outcome"] != "missing").all()


@pytest.mark.slow
def test_the_same_scores_in_another_order_give_the_same_numbers():
    scores = images_of(as_in_the_paper())
    shuffled = scores.sample(frac=1, random_state=1)
    found = compare(scores, NAMES)
    for same in (scores, shuffled):
        pd.testing.assert_frame_equal(compare(same, NAMES), found)


def test_the_backbone_that_the_edition_names_stands_for_a_family():
    scores = pd.concat(
        [
            ad(tame=LOW, rise=HIGH, backbone="efficientnet_lite0"),
            ad(tame=HIGH, rise=LOW, backbone="resnet50"),
        ]
    )
    claim = Claim(0, "", tuple(_best("resnet", "t-tame", [("ad", 15)])))
    for name, expected in (("efficientnet_lite0", YES), ("resnet50", NO)):
        found = judged(claim, scores, {"resnet": name})
        assert (found["verdict"], found["backbones"]) == (expected, name)
    without = verdicts(compare(scores, {"vit": "resnet50"}), {"vit": "resnet50"}).set_index(
        "number"
    )
    assert without["verdict"][3] == ABSENT


def test_evidence_takes_one_set_of_taps_and_the_tables_of_the_paper():
    rows = [  # table, taps, method, value
        ("VI", "max-pool", "one layer", 1.0),
        ("VI", "conv", "one layer", 2.0),
        ("VII", "", "matched", 3.0),
        ("seeds", None, "seed 1", 4.0),
        ("released", "", "variation term", 5.0),
        ("controls", None, "random", 6.0),
    ]
    ablated = pd.DataFrame(rows, columns=["table", "taps", "method", "value"])
    ablated = ablated.assign(backbone="vgg16", measure="ad", v=15, image_id="i0")
    costs = pd.DataFrame({"backbone": ["vgg16"], "method": ["rise"], "forwards": [500.0]})
    scores = ad(tame=[7.0]).drop(columns="table")

    def of(taps, ablated=ablated):
        return evidence(scores, ablated, scores[:0], costs, taps)

    for taps, own in (({}, 1.0), ({"vgg16": None}, 1.0), ({"vgg16": "conv"}, 2.0)):
        found = of(taps)
        assert list(found.columns) == COLUMNS
        assert found[["table", "method", "measure", "value"]].values.tolist() == [
            ["", "t-tame", "ad", 7.0],
            ["VI", "one layer", "ad", own],
            ["VII", "matched", "ad", 3.0],
            ["seeds", "seed 1", "ad", 4.0],
            ["", "rise", "forwards", 500.0],
        ]
    plain = ablated.drop(columns="taps").drop(index=1)  # an edition without a VGG
    assert of({}, plain)["value"].tolist() == [7.0, 1.0, 3.0, 4.0, 500.0]


def test_the_deciding_comparison_of_each_claim_is_the_one_that_the_verdict_names():
    means = as_in_the_paper()
    worse, better = (("demo_resnet", method, "ad", 50) for method in ("t-tame", "grad-cam"))
    scores = images_of(swapped(means, worse, better))
    scores = scores[(scores["backbone"] != "demo_vit") | (scores["measure"] != "coverage")]
    compared = compare(scores, NAMES)
    found = deciding_comparisons(compared)
    judged_too = verdicts(compared, NAMES)
    assert found["number"].tolist() == list(range(1, 13)) and found["title"].all()
    assert found["verdict"].tolist() == judged_too["verdict"].tolist()
    third, last = found.iloc[2], found.iloc[11]
    assert (third["verdict"], third["right"], third["v"]) == (NO, "grad-cam", 50)
    assert (
        third["low"] > third["bound"] == 0 and third["towards"] == -1
    )  # more, where less is claimed
    assert last["verdict"] == ABSENT and last["outcome"] == "missing"
    for own, told in zip(found.to_dict("records")[:11], judged_too["decided by"], strict=False):
        assert f"{shown_name(own['left'])} " in told and told.endswith(interval_in_numbers(own))
        assert own["towards"] * (own["difference"] - own["bound"]) >= 0 or own["number"] == 3


def test_what_is_mixed_is_claimed_the_way_that_it_lacks():
    means = as_in_the_paper()
    for backbone in ("demo_vgg", "demo_resnet"):  # three layers are nowhere worse than two
        for measure, v in MASKED:
            good = (1, -1)[measure == "ic"]
            means[backbone, "two layers", measure, v] = 50 + good * 25
    compared = compare(images_of(means), NAMES)
    seventh = deciding_comparisons(compared).iloc[6]
    assert (seventh["verdict"], seventh["claimed"]) == (NO, "mixed")
    assert seventh["towards"] * seventh["difference"] < 0  # not as claimed
