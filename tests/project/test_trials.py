"""The appendix on trials: how trainings end, classes trained on and others, what is won there."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from tests.project.test_chapters import CONFIGURATION, rows_of
from tests.project.test_pages import pages

IMAGES = [f"{i}.jpg" for i in range(40)]


def of(method, measure, v, values):
    rows = {"method": method, "image_id": IMAGES, "value": values, "backbone": "net"}
    return pd.DataFrame({**rows, "measure": measure, "v": v})


@pytest.fixture
def editions(tmp_path):
    """Of classes left out T-TAME has less AD(50) than Grad-CAM, as much AD(15), less LeRF."""
    scatter = np.random.default_rng(0).uniform(-8, 8, (6, len(IMAGES)))
    scatter -= scatter.mean(axis=1, keepdims=True)
    for name, own, rival in (("seen", 20, 60), ("unseen", 30, 50)):
        folder = tmp_path / name / "net"
        folder.mkdir(parents=True)
        scores = [
            of("t-tame-top", "ad", 50, own + scatter[0]),
            of("grad-cam", "ad", 50, rival + scatter[1]),
            of("t-tame-top", "ad", 15, 80 + scatter[2]),
            of("grad-cam", "ad", 15, 80 + scatter[3]),
            of("t-tame", "ad", 50, own + 9 + scatter[0]),
            of("t-tame-top", "invalid", 0, 0),
        ]
        pd.concat(scores).to_parquet(folder / "scores.parquet")
    steps = [
        of(method, "lerf", v, mean + v / 10 + scatter[4 + i])
        for i, (method, mean) in enumerate([("t-tame-top", 38), ("grad-cam", 48)])
        for v in (10, 30)
    ]
    pd.concat(steps).to_parquet(folder / "road.parquet")
    (tmp_path / "seen" / "summary").mkdir()
    means = pd.DataFrame({"backbone": ["net"], "method": "t-tame-top"})
    for file in ("means", "differences"):
        means.to_csv(tmp_path / "seen" / "summary" / f"{file}.csv", index=False)
    return tmp_path / "seen", tmp_path / "unseen"


def test_both_kinds_of_classes_have_means_and_those_left_out_outcomes(editions):
    _, _, own, recipe, rival = rows_of(pages.trials.classes_table(*editions))
    assert [row[:2] for row in (own, recipe, rival)] == [
        ["net", "T-TAME, top masks"],
        ["net", "T-TAME"],
        ["net", "Grad-CAM"],
    ]
    told = [[re.sub(r" ±\d\.\d", "", cell) for cell in row[2:]] for row in (own, recipe, rival)]
    assert told[0] == ["30.0 (20.0)", "80.0 (80.0)", "40.0", ""]
    assert told[1] == ["39.0 (29.0)", "", "", ""]
    assert told[2] == [
        "50.0 (60.0)",
        "80.0 (80.0)",
        "50.0",
        "AD(50) better, AD(15) level, LeRF worse",
    ]


def test_a_longer_training_stands_beside_the_edition_s_own_on_the_photographs_of_both(editions):
    seen, _ = editions
    own = pd.read_parquet(seen / "net" / "scores.parquet").query("method == 't-tame-top'")
    own = own[own["measure"] != "invalid"]
    own = pd.concat([own, own.assign(measure="ic")])
    own.to_parquet(seen / "net" / "scores.parquet")
    more = own.iloc[:5].assign(image_id=[f"{i}.png" for i in range(5)], value=90)
    less = own["value"] - (own["measure"] == "ad") * (own["v"] == 50) * (5 + own.index % 3)
    place = seen.with_name("longer") / "net"
    place.mkdir(parents=True)
    pd.concat([own.assign(value=less), more]).to_parquet(place / "scores.parquet")
    for folder, steps in ((seen / "net", 312), (place, 2496)):
        file = folder / "training-t-tame-top.csv"
        pd.DataFrame({"step": range(steps)}).to_csv(file, index=False)
    _, _, short, long, apart = rows_of(pages.trials.longer_table(seen))
    assert [short[1], long[1], apart[1]] == ["312", "2,496", "difference"]
    assert short[2].startswith("20.0 ±") and long[2].startswith("14.0 ±") and apart[-1] == "40"
    assert apart[2].startswith("better by 6.0 ±") and apart[3] == "level: 0.0 ±0.0 points apart"
    road = pd.read_parquet(editions[1] / "net" / "road.parquet")
    falls = road.assign(measure="morf")
    pd.concat([road, falls]).to_parquet(place / "road.parquet")
    told = pages.trials.longer_facts(seen)
    assert re.fullmatch(r"on net better by 6.0 ±[\d.]+ points, n = 40", told["longer_gain"])
    found = r"MoRF on net better by [\d.]+ ±[\d.]+ points, n = 40; LeRF on net worse by .*"
    assert re.fullmatch(found, told["longer_road"])
    *_, unseen = rows_of(pages.trials.classes_table(*editions))[:3]
    assert "(22." in unseen[2]  # in brackets the longer training's, of all its photographs


def test_the_paragraph_says_of_classes_left_out_what_the_committed_scores_do():
    text = pages.trials.classes_table(pages.COMMITTED, pages.OTHERS)
    told = {(row[0], row[1]): row[-1] for row in rows_of(text)[2:] if row[-1]}
    assert len(told) == 4
    assert all("worse" not in outcome for outcome in told.values())
    better = [row for row, outcome in told.items() if outcome.startswith("AD(50) better")]
    assert len(better) == 4  # in AD(50): of Grad-CAM on three classifiers, and attention rollout


def test_the_sentence_counts_what_is_won_on_classes_left_out(editions):
    told = pages.trials.sentence(editions[1])
    assert told.startswith("On 40 photographs of classes left out")
    assert told.endswith("AD(50) 1 better; AD(15) 1 level; LeRF 1 worse.")
    file = editions[1] / "net" / "road.parquet"
    rows = pd.read_parquet(file)
    rows[rows["image_id"].isin(IMAGES[:25])].to_parquet(file)
    told = pages.trials.sentence(editions[1])
    assert told.startswith("On 40 ") and told.endswith("LeRF, on 25 of them, 1 worse.")


def test_the_end_of_a_training_is_the_mean_of_its_last_steps(editions):
    rows = {"truth_mean": [0.0] * 10 + [0.5, 0.7] * 15, "truth_spread": 0.1, "logits_max": 7000.4}
    pd.DataFrame({"step": range(40), **rows}).to_csv(editions[0] / "net" / "training.csv")
    *_, row = rows_of(pages.trials.saturation_table(editions[0]))
    assert row == ["net", "0.60", "0.10", "7,000"]


def test_the_parts_of_a_variant_are_told_by_what_their_absence_does(editions):
    scatter = np.random.default_rng(0).uniform(-8, 8, (4, len(IMAGES)))
    means = {"t-tame-matched": 40, "matched, no smoothing": 60, "matched, last blocks": 20}
    means["matched, sigmoid masks"] = 40
    rows = [
        of(method, "ad", 50, mean + scatter[i] - scatter[i].mean()).assign(table="beyond")
        for i, (method, mean) in enumerate(means.items())
    ]
    pd.concat(rows).to_parquet(editions[0] / "net" / "ablations.parquet")
    ran = json.dumps(CONFIGURATION)
    (editions[0] / "summary" / "configuration.json").write_text(ran)
    assert pages.trials.parts(editions[0]) == (
        "In trainings of 7 steps, part by part, it is lower with smoothing (matched masks on net); "
        "higher with blocks over the depth (matched masks on net); not shown to change with scaled masks."
    )


@pytest.fixture
def tried(tmp_path):
    """More masks lose 9 points less than its own setting, fewer as many; none is trained at 0."""
    folder = tmp_path / "amortised-rise" / "net"
    folder.mkdir(parents=True)
    scatter = np.random.default_rng(0).uniform(-5, 5, (9, len(IMAGES)))
    scatter -= scatter.mean(axis=1, keepdims=True)
    trainings = {  # method, setting, steps: mean
        ("t-tame-rise", "", 312): 40,
        ("t-tame-rise", "masks 8", 312): 31,
        ("t-tame-rise", "masks 2", 312): 40,
        ("t-tame-rise", "", 624): 34,
        ("t-tame-rise", "masks 8", 624): 28,
        ("t-tame", "", 312): 52,
        ("t-tame", "", 624): 60,
        ("t-tame-top", "", 312): 33,
        ("t-tame-top", "", 2496): 25,
    }
    scores = [
        of(name, measure, v, mean + scatter[i]).assign(steps=steps, setting=setting)
        for i, ((name, setting, steps), mean) in enumerate(trainings.items())
        for measure in ("ad", "ic")
        for v in (50, 15)
    ]
    scores.append(of("t-tame", "ad", 50, np.full(len(IMAGES), 90.0)).assign(steps=0, setting=""))
    pd.concat(scores).to_parquet(folder / "convergence.parquet")
    return folder.parent


def test_amortised_rise_is_told_by_each_setting_beside_its_own(tried):
    found = pages.trials.explored_facts(tried)
    assert found["explored"] == (
        "On net and 40 validation photographs AD(50) is after 312 steps lower with `masks 8`, not "
        "shown to change with `masks 2`; after 624 steps lower with `masks 8`."
    )
    longer = r"on net 624 steps are, against 312, worse by 8.0 ±[\d.]+ points, n = 40"
    assert re.fullmatch(longer, found["explored_longer"])
    longer = r"on net 2496 steps are, against 312, better by 8.0 ±[\d.]+ points, n = 40"
    assert re.fullmatch(longer, found["explored_top"])
    rows = rows_of(pages.trials.explored_table(tried))
    told = {(row[1], row[2]): (row[3].split()[0], row[-1]) for row in rows}
    assert told["T-TAME", "624"] == ("60.0", "worse")
    assert told["T-TAME, amortised RISE", "624"] == ("34.0", "")
    assert told["T-TAME, amortised RISE, masks 8", "624"] == ("28.0", "better")
    assert pages.trials.explored_facts(tried / "none")["explored"] == ""
