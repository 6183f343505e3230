"""Chapters made from scores: their words and numbers are those of the tables."""

import json
import re

import pandas as pd
import pytest

from tests.project.test_pages import pages
from ttame_book.report.claims import VERDICTS

chapters = pages.chapters
CONFIGURATION = {
    "train": {"steps": 3120},
    "trained": {"t-tame-top": {"steps": 40}, "b": {"max_lr": 1}},
    "backbones": {
        "net": {"trained": {"t-tame-top": {"steps": 1000}}},
        "other": {"train": {"steps": 7}},
        "third": {"train": {"max_lr": 1}},
    },
    "ablate": {"steps": 7},
    "evaluate": {"options": {"rise": {"masks": 500}}},
    "claims": {"vgg": "squeezenet1_1", "vit": "other"},
}


@pytest.fixture
def edition(tmp_path):
    """Scores of one classifier: T-TAME is better than Grad-CAM, level with RISE, behind IIA."""
    summary = tmp_path / "own" / "summary"
    summary.mkdir(parents=True)
    methods = {"t-tame": 40, "t-tame-top": 30, "grad-cam": 50, "rise": 40.5, "iia": 20}
    means = [
        ("net", method, measure, v, 60, mean, mean - 1, mean + 3)
        for method, mean in (methods | {"random": 90}).items()
        for measure, v in chapters.COLUMNS
    ]
    columns = ["backbone", "method", "measure", "v", "n", "mean", "low", "high"]
    pd.DataFrame(means, columns=columns).to_csv(summary / "means.csv", index=False)
    differences = [
        ("net", "ad", 50, method, rival, 60, mean - methods[rival], 0, 1, p)
        for method, mean in (("t-tame", 40), ("t-tame-top", 30))
        for rival, p in (("grad-cam", 0.01), ("rise", 0.5), ("iia", 0.01))
    ]
    columns = ["backbone", "measure", "v", "method", "rival", "n", "difference", "low", "high", "p"]
    pd.DataFrame(differences, columns=columns).to_csv(summary / "differences.csv", index=False)
    judged = [VERDICTS[0]] * 3 + [VERDICTS[1]] * 7 + [VERDICTS[2]] * 2
    claims = [
        (number, f"what {number} says", verdict, 4, 3, 2, f"what decides {number}")
        for number, verdict in enumerate(judged, start=1)
    ]
    columns = ["number", "claim", "verdict", "as claimed", "otherwise", "undecided", "decided by"]
    pd.DataFrame(claims, columns=columns).to_csv(summary / "claims.csv", index=False)
    curves = [
        ("net", method, steps, measure, 50, 30, mean - steps / 100)
        for method, mean in (("t-tame", 50), ("t-tame-top", 45), ("rise", 20))
        for steps in (0, 1000)
        for measure in ("ad", "ic")
    ]
    columns = ["backbone", "method", "steps", "measure", "v", "n", "mean"]
    pd.DataFrame(curves, columns=columns).to_csv(summary / "convergence.csv", index=False)
    scored = [
        (method, 1000, "ad", 50, f"{i}.jpg", mean + i % spread, "net")
        for method, mean, spread in (("t-tame", 40, 3), ("t-tame-top", 35, 4), ("rise", 10, 5))
        for i in range(30)
    ]
    columns = ["method", "steps", "measure", "v", "image_id", "value", "backbone"]
    (tmp_path / "own" / "net").mkdir()
    pd.DataFrame(scored, columns=columns).to_parquet(
        tmp_path / "own" / "net" / "convergence.parquet"
    )
    # RISE has 40 photographs, spread far more than its mean is from the variant's
    scores = [
        (method, "ad", 50, f"{i}.jpg", mean + spread * (i % 2), "net")
        for method, mean, spread, n in (
            ("t-tame", 40.5, 0, 60),
            ("t-tame-top", 30, 0, 60),
            ("rise", -20, 120, 40),
        )
        for i in range(n)
    ]
    columns = ["method", "measure", "v", "image_id", "value", "backbone"]
    pd.DataFrame(scores, columns=columns).to_parquet(tmp_path / "own" / "net" / "scores.parquet")
    costs = {"method": ["t-tame", "rise"], "backbone": "net", "forwards": [1, 8000]}
    costs |= {"backwards": [0, 1], "milliseconds": [18.94, 120000]}
    pd.DataFrame(costs).to_csv(summary / "costs.csv", index=False)
    sides = ("t-tame", "rise", 40, 50, -10, -12, -8, "< 0", 0, -1, 60, 1.5, "as claimed")
    evidence = [(number, "net", "ad", 50, *sides) for number in range(1, 13)]
    columns = ["claim", "backbone", "measure", "v", "left", "right", "left_mean", "right_mean"]
    columns += ["difference", "low", "high", "claimed", "bound", "towards"]
    columns += ["images", "clearness", "outcome"]
    table = pd.DataFrame(evidence, columns=columns)
    table.to_csv(summary / "claims-evidence.csv", index=False)
    (summary / "configuration.json").write_text(json.dumps(CONFIGURATION))
    return summary.parent


def rows_of(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_first_page_counts_the_verdicts_and_the_photographs(edition):
    found = chapters.facts(edition)
    told = {"confirmed": "three", "not_confirmed": "seven", "undecided": "two"}
    told |= {"not_applicable": "none", "claims": "twelve", "photographs": "60"}
    told |= {f"{key}_first": word.capitalize() for key, word in told.items()}
    told |= {"classifiers": "one", "validation": "30"}
    told |= {"lengths_best": "*top masks* on net", "brightness": "It is not compared."}  # not RISE
    told |= {"best": "*top masks* (`t-tame-top`), 1,000 steps, on net"}
    assert told.items() <= found.items()


def test_recipes_that_are_level_with_the_best_are_named_too(edition):
    file = edition / "net" / "convergence.parquet"
    rows = pd.read_parquet(file)
    rows.loc[rows["method"] == "t-tame", "value"] -= 5
    rows.to_parquet(file)
    assert chapters.facts(edition)["lengths_best"] == "*top masks* and *T-TAME* on net"


def test_the_control_that_knows_no_classifier_is_compared_in_words(edition):
    file = edition / "summary" / "differences.csv"
    rows = pd.read_csv(file)
    control = rows[rows["rival"] == "iia"].assign(rival="brightness")
    control.loc[control["method"] == "t-tame-top", "difference"] = -9
    pd.concat([rows, control]).to_csv(file, index=False)
    expected = "In AD(50) the paper's recipe is behind it on net; the best variant beats it on net."
    assert chapters.brightness(edition) == expected


def test_settings_are_those_that_the_edition_ran_with(edition):
    told = {"steps": "3,120", "ablation_steps": "7", "masks": "500", "batch": "32"}
    told["stand_ins"] = "SqueezeNet 1.1 for VGG-16 and other for ViT-B/16"
    assert told.items() <= chapters.facts(edition).items()


@pytest.mark.parametrize(
    ("backbone", "method", "steps"),
    [
        ("net", "t-tame-top", 1000),
        ("other", "t-tame-top", 40),
        ("other", "b", 7),
        ("third", "b", 3120),
    ],
)
def test_a_methods_steps_are_the_nearest_that_are_given(backbone, method, steps):
    assert chapters.steps_of(CONFIGURATION, backbone, method) == steps


def test_every_word_that_a_text_asks_for_is_made(edition):
    asked = {
        name.split("}}")[0].strip()
        for file in pages.PROSE.glob("*.md")
        for name in file.read_text().split("{{")[1:]
    }
    made = {"unseen", "parts"}  # by pages.main
    made |= {*chapters.facts(edition), *pages.trials.explored_facts(edition)}
    made |= {*pages.trials.longer_facts(edition)}
    assert asked and asked <= made


def test_a_classifiers_row_says_how_the_recipe_and_the_best_variant_stand(edition):
    _, _, (name, paper, *best, rise, longer) = rows_of(chapters.answer_table(edition))
    assert name == "net" and paper == "1 better, 1 level, 1 worse"
    assert best == [paper, "no rivals", "no rivals"]  # AD(50) by the same tests, AD(15), MoRF
    assert rise.startswith("level: 10.0 ±") and rise.endswith(" points less, n = 40")
    assert longer == ""


def test_where_rise_was_not_run_it_is_not_compared(edition):
    file = edition / "net" / "scores.parquet"
    rows = pd.read_parquet(file)
    rows[rows["method"] != "rise"].to_parquet(file)
    assert rows_of(chapters.answer_table(edition))[2][-2] == "not compared"
    told = "the variant is not compared; the recipe is not compared."
    assert told in chapters.classifier_page(edition, "net")


def test_rise_is_compared_on_more_photographs_where_its_own_edition_was_run(edition):
    images = [f"{i}.jpg" for i in range(90)]

    def of(method, value):
        rows = {"method": method, "image_id": images, "value": value, "backbone": "net"}
        return pd.DataFrame({**rows, "measure": "ad", "v": 50.0})

    place = edition.with_name("more-photographs") / "net"
    place.mkdir(parents=True)
    own = [i % 7 for i in range(90)]
    less = [value - 10 - i % 3 for i, value in enumerate(own)]
    pd.concat([of("t-tame-top", own), of("rise", less)]).to_parquet(place / "scores.parquet")
    *_, (*_, rise, _) = rows_of(chapters.answer_table(edition))
    assert rise.startswith("worse by 11.0 ±") and rise.endswith("points, n = 90")


def test_a_run_of_fewer_photographs_takes_the_place_of_none(edition):
    own = pd.read_parquet(edition / "net" / "scores.parquet")
    place = edition.with_name("more-photographs") / "net"
    place.mkdir(parents=True)
    own.groupby("method").head(30).to_parquet(place / "scores.parquet")
    assert rows_of(chapters.answer_table(edition))[-1][-2].endswith("n = 40")


def test_t_tames_are_compared_with_rise_in_ad_and_ic(edition):
    images = [f"{i}.jpg" for i in range(90)]

    def of(method, measure, v, values):
        rows = {"method": method, "image_id": images, "value": values, "backbone": "net"}
        return pd.DataFrame({**rows, "measure": measure, "v": float(v)})

    place = edition.with_name("more-photographs") / "net"
    place.mkdir(parents=True)
    own, apart = [i % 7 for i in range(90)], [8 * (i % 2) - 4 for i in range(90)]
    further = [value + 10 + i % 3 for i, value in enumerate(own)]
    scores = [of("t-tame-top", "ad", 50, own), of("rise", "ad", 50, further)]
    scores += [of("t-tame-top", "ad", 15, apart), of("rise", "ad", 15, [0] * 90)]
    scores += [of("t-tame-top", "ic", 50, own), of("rise", "ic", 50, further)]
    pd.concat(scores).to_parquet(place / "scores.parquet")
    trials = pages.trials
    recipe, top = rows_of(trials.rise_table(edition))[2:]
    assert top[:2] == ["net", "T-TAME, top masks"]
    told = [re.sub(r" ±\d\.\d", "", cell) for cell in top[2:]]
    assert told == [
        "better by 11.0 points",
        "level: 0.0 points apart",
        "worse by 11.0 points",
        "not compared",
        "90",
    ]
    told = ["T-TAME", "level: 0.5 ±18.0 points more", "40"]  # of the edition itself
    assert recipe[1:3] + recipe[-1:] == told
    assert trials.rise_counts(edition) == "1 better, 1 level, 1 worse (IC(50) on net)"


def test_top_masks_trained_longer_take_the_place_of_the_others_beside_rise(edition):
    rise = pd.read_parquet(edition / "net" / "scores.parquet").query("method == 'rise'")
    better = rise.assign(method="t-tame-top", value=rise["value"] - 5 - rise["value"] % 3)
    place = edition.with_name("longer") / "net"
    place.mkdir(parents=True)
    better.to_parquet(place / "scores.parquet")
    trials = pages.trials
    *_, longer = rows_of(trials.rise_table(edition))
    assert longer[:2] == ["net", "T-TAME, top masks, trained longer"] and longer[-1] == "40"
    assert longer[2].startswith("better by ") and longer[3:-1] == ["not compared"] * 3
    assert trials.rise_counts(edition) == "1 better"


def test_a_classifiers_page_has_each_method_once_and_controls_with_the_first(edition):
    text = chapters.classifier_page(edition, "net")
    assert text.startswith(
        "# net on photographs\n\n**In AD(50) the paper's recipe is better than 1"
    )
    told = r"the variant is level: 10.0 ±[\d.]+ points less, n = 40; the recipe is level: 0.5 ±[\d.]+ points more"
    assert re.search(told, text)
    first, rest = text.split("{dropdown}")
    names = [row[0] for row in rows_of(first)[2:]]
    shown = ["T-TAME", "T-TAME, top masks", "Grad-CAM", "RISE", "IIA", "Random map (control)"]
    assert names == shown
    assert rows_of(rest)[2:] == []
    assert rows_of(first)[2] == ["T-TAME", *["40.0 ±2.0"] * 6]


def test_a_methods_row_says_what_an_explanation_takes(edition):
    head, _, first, *rest = rows_of(chapters.costs_table(edition))
    assert head == ["time · passes", "net"] and first == ["T-TAME", "19 ms · 1"]
    assert ["RISE", "120,000 ms · 8,001"] in rest and ["IIA", ""] in rest


def test_trainings_of_another_length_are_told_beside_the_scores():
    config = {"train": {"steps": 312}, "backbones": {"net": {}}}
    methods = ["t-tame-top", "t-tame-matched", "rise"]
    assert chapters.otherwise(config, "net", methods) == ""
    config["trained"] = {"t-tame-matched": {"steps": 100}}
    told = "*T-TAME, matched masks was trained for 100 steps, the others for 312.*\n"
    assert chapters.otherwise(config, "net", methods) == told


def test_the_page_of_claims_has_a_verdict_of_each_edition(edition):
    text = chapters.claims_page({"on photographs": edition, "in demo": edition})
    assert (
        "**The paper's recipe on photographs: 7 not confirmed, 3 confirmed, 2 undecided at this sample size.**"
        in text
    )
    rows = rows_of(text.split("\n## ")[0])[2:]
    assert rows[0] == ["1", "confirmed", "confirmed", "what 1 says"]
    assert [row[0] for row in rows] == [str(n) for n in range(1, 13)]
    decides = "net, AD(50): T-TAME 40.0, RISE 50.0; difference −10.0 [−12.0, −8.0]; claimed < 0"
    assert rows_of(text.split("\n## ")[1])[2] == ["1", "4", "3", "2", decides]


def test_the_page_before_the_notebooks_links_them_and_says_where_there_are_no_scores(edition):
    text = chapters.folder_page(edition, "net", ["03_train", "05_road"])
    assert (
        "**In AD(50) T-TAME is better than 1 of 3 rivals, level with 1 and worse than 1.**" in text
    )
    assert "- [](/net/03_train)\n- [](/net/05_road)\n" in text
    other = chapters.folder_page(edition, "gallery", ["03_train"])
    assert "Too few test images for scores" in other and "|" not in other
