"""Tables that the appendix on trials has typed: those whose scores are committed, image by image."""

import pandas as pd

from tests.commands import ROOT
from ttame_book.report.intervals import averages, paired_differences

IMAGENETTE = ROOT / "results" / "imagenette"
FOLDERS = {
    "EfficientNet-Lite0": "efficientnet_lite0",
    "SqueezeNet": "squeezenet1_1",
    "ViT-Tiny": "vit_ti_16",
}
MEASURES = {f"{m.upper()}({v})": (m, v) for m in ("ad", "ic") for v in (100, 50, 15)}
TEN = [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]
"""Imagenette's classes among ImageNet's, from tench to parachute."""
METHODS = {
    "Grad-CAM, as it is": "grad-cam",
    "LayerCAM, as it is": "layer-cam",
    "`t-tame-warm`, as it is": "t-tame-warm",
    "`t-tame-warm-matched`, the values before its sigmoid, as it is": "t-tame-warm-matched, no sigmoid",
    "`t-tame-warm-matched`, its sigmoid, as it explains": "t-tame-warm-matched",
    "RISE, 500 masks": "rise",
    "RISE, 4000 masks": "rise, 4000 masks",
}


def table(header):
    """Rows of the table with this header, in a list each; an empty cell says what the one above it says."""
    text = (ROOT / "book" / "trials.md").read_text()
    lines = text[text.index(f"\n{header}\n") + 1 :].split("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    frame = pd.DataFrame(rows[2:])
    return rows[0], frame.mask(frame == "").ffill().values.tolist()


def read(backbone, file="scores"):
    scores = pd.read_parquet(IMAGENETTE / backbone / f"{file}.parquet")
    return scores[scores["measure"].isin(["ad", "ic"])]


def means(scores, labels):
    """Their means as a row of the table has them, under the labels that are measures."""
    found = scores.groupby(["measure", "v"])["value"].mean()
    return [f"{found[MEASURES[label]]:.1f}" for label in labels if label in MEASURES]


def of_method(scores, label):
    method = METHODS.get(label, label.strip("`"))
    found = scores[scores["method"] == method]
    assert len(found), method
    return found


def test_values_of_maps_and_of_their_roots():
    labels, rows = table("| | | mean of the map | AD(100) | AD(50) | AD(15) | IC(50) |")
    scores, above = read("squeezenet1_1", "values"), ""
    for _, label, _, *cells in rows:
        root = label == "its square root"
        found = of_method(scores, f"{METHODS[above]}, root" if root else label)
        assert cells == means(found, labels), (above, label)
        above = label
    assert len(rows) == scores["method"].nunique()


def test_other_seeds():
    labels, rows = table("| | seed | device | AD(50) | AD(15) | IC(50) | IC(15) |")
    for label, seeds, _, *cells in rows:
        classifier, method = label.replace("`", "").split(", ")
        scores = read(FOLDERS[classifier], "other-seeds" if seeds == "0, 1, 2" else "scores")
        trainings = [s for _, s in of_method(scores, method).groupby("seed")]
        each = zip(*(means(training, labels) for training in trainings), strict=True)
        assert cells == [", ".join(values) for values in each], label
    assert len(rows) == 6


def test_masks_of_rise_on_the_same_photographs():
    labels, rows = table("| | photographs | | AD(50) | AD(15) | IC(50) | IC(15) |")
    for classifier, images, label, *cells in rows:
        many = read(FOLDERS[classifier], "rise-masks")
        scores = pd.concat([many, read(FOLDERS[classifier])])
        scores = scores[scores["image_id"].isin(many["image_id"])]
        assert int(images) == many["image_id"].nunique()
        assert cells == means(of_method(scores, label), labels), (classifier, label)
    assert len(rows) == 11


def test_photographs_by_the_class_that_they_are_taken_for():
    labels, rows = table(
        "| ViT-Tiny takes it for | photographs | | AD(50) | AD(15) | IC(50) | IC(15) |"
    )
    taken = pd.read_csv(IMAGENETTE / "vit_ti_16" / "predicted.csv").set_index("image_id")["class"]
    ten = taken.isin(TEN)
    scores = pd.concat([read("vit_ti_16", "rise-masks"), read("vit_ti_16")])
    for kind, images, label, *cells in rows:
        chosen = taken.index[ten if kind == "one of the ten classes" else ~ten]
        of_kind = scores[scores["image_id"].isin(chosen)]
        assert int(images) == len(chosen)
        assert cells == means(of_method(of_kind, label), labels), (kind, label)
    assert len(rows) == 4


def test_classes_that_explainers_were_trained_on_and_others():
    _, rows = table("| | | trained on | left out |")
    places = [("imagenette", "ready-made"), ("other-classes", "scores")]
    for classifier, label, *cells in rows:
        method = {"attention rollout": "attention-rollout"}.get(label, label.strip("`").lower())
        for cell, (edition, file) in zip(cells, places, strict=True):
            place = IMAGENETTE.with_name(edition) / FOLDERS[classifier] / f"{file}.parquet"
            scores = of_method(pd.read_parquet(place), method)
            assert scores["image_id"].nunique() == 200
            assert cell == ", ".join(means(scores, ["AD(100)", "AD(50)", "AD(15)"]))
    assert len(rows) == 7


def test_top_masks_against_rise_and_on_classes_left_out():
    text = (ROOT / "book" / "trials.md").read_text()
    told = text[text.index("(top-masks)=") : text.index("Earlier trials, with tied rows")]
    place = IMAGENETTE / "vit_ti_16"
    both = pd.concat(
        [pd.read_parquet(place / f"{f}.parquet") for f in ("ready-made", "rise-masks")]
    )
    both = both[both["measure"].isin(["ad", "ic"])].assign(backbone="vit_ti_16")
    found = paired_differences(both, ["t-tame-top"])
    found = found[found["rival"] == METHODS["RISE, 4000 masks"]].set_index(["measure", "v"])
    behind = found.loc["ad", 50]
    assert f"ahead by {half(behind)} in AD(50)" in told and behind["p"] < 0.05
    assert found.loc["ic", 50]["p"] < 0.05 < min(found.loc[m, 15]["p"] for m in ("ad", "ic"))
    place = IMAGENETTE.with_name("other-classes") / "vit_ti_16"
    road = averages(pd.read_parquet(place / "road.parquet")).assign(backbone="vit_ti_16")
    found = paired_differences(road, ["t-tame-top"]).set_index(["measure", "rival"])
    rows = [found.loc["mean lerf", rival] for rival in ("attention-rollout", "grad-cam")]
    assert f"lead by {half(rows[0])} and {half(rows[1])}" in told
    assert all(row["n"] == 60 and row["p"] > 0.05 for row in rows)
    masked = pd.read_parquet(place / "scores.parquet").assign(backbone="vit_ti_16")
    found = paired_differences(masked, ["t-tame-top"]).set_index(["measure", "v", "rival"])
    for rival in ("attention-rollout", "grad-cam"):
        assert all(found.loc["ad", v, rival]["p"] < 0.05 for v in (50, 15))


def half(row):
    return f"{abs(row['difference']):.1f} ±{(row['high'] - row['low']) / 2:.1f}"
