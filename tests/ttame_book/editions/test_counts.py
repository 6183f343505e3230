"""Counts: forward-equivalents worked out by hand, the studies' own lists, and PyTorch's counters."""

from dataclasses import replace

import pytest
import torch

import ttame_book as tb
import ttame_core as tt
from tests.commands import ROOT
from ttame_book.editions import counts
from ttame_book.editions.counts import ASKED, Case, Classifier, classifier_of, count, counted
from ttame_book.editions.graph import STEPS
from ttame_book.studies.ablations import LABELS, ablations
from ttame_book.studies.grid import grid
from ttame_book.studies.randomisation import stages
from ttame_core.classifiers.loading import named_taps
from ttame_core.errors import NotServedError
from ttame_core.metrics.costs import metered

CNN = Classifier(tokens=False, channels=10, behind=0.5, taps=3, parts=7, variants=6)
VIT = replace(CNN, tokens=True, parts=16)
BY_HAND = {
    # 3 steps of 8 images, 3 forwards each; on the CNN L-CAM-Img too
    "train": (3 * 2 * 24, 3 * 24),
    # 24 images and 8 for RISE, asked for at once and by 3 percentages of 7 methods' maps; maps of
    # T-TAME, L-CAM-Img on the CNN, Grad-CAM (half of all lies behind), RISE, LRP on the ViT
    "evaluate": (
        32 + 3 * (6 * 24 + 8) + 24 + 24 + 24 * 1.5 + 8 * 8,
        32 + 3 * (6 * 24 + 8) + 24 + 24 * 1.5 + 8 * 8 + 24 * 6,
    ),
    # 6 images, imputed 2 x 9 and painted 2 x 11 times; maps of RISE and LRP are kept
    "road": (6 + 7 * 6 * 40 + 6 + 6 + 6 * 1.5, 6 + 7 * 6 * 40 + 6 + 6 * 1.5),
    # 4 images shown, one counted and five timed
    "qualitative": (10 * (1 + 1 + 1.5 + 8), 10 * (1 + 1.5 + 8 + 6)),
    # the six of Table VI, another masking order, a seed, three departures and taps at the norms,
    # two steps each; ten share the images' own forward; four more rows are the proposed method's,
    # one of them scored by other masks
    "ablations": (0, (3 * 12 - 9) * 2 * 8 + 4 * (16 + 2) + 4 * 16 + 4 * 3 * (12 + 1 + 2 * 3)),
    # two rates by 2 and by 3 steps, of which the edition's own is there; 3 forwards serve all
    "hyperparameters": (0, (2 * (2 * (2 + 3) - 3) + 3) * 8 + 4 * 4 * (1 + 1 + 2)),
    # the one T-TAME that is compared, 1 and 3 steps, of which the 3 are there; RISE for as much
    "convergence": (
        0,
        (2 * (1 + 3 - 3) + 3) * 8 + 4 * 3 * (1 + 1 + 2) + 3 * (1 + 3) * 8 + 4 * 2 * 2,
    ),
    # the original, each part, the fusion, three branches
    "sanity": (3 * (1 + 7 + 1 + 3), 3 * (1 + 16 + 1 + 3)),
    # two maps at once, three percentages of each
    "counterfactual": (3 + 3 * 2 * 3, 3 + 3 * 2 * 3),
}


def read(name, tmp_path):
    return tb.Edition.read(name, results=str(tmp_path), root=ROOT)


def test_the_counts_of_a_tiny_configuration_are_those_worked_out_by_hand(tmp_path):
    edition = read("smoke", tmp_path)
    table = counted(count(edition, {"demo_resnet": CNN, "demo_vit": VIT}))
    assert list(table.index) == [step.rule for step in STEPS] == list(BY_HAND)
    for rule, expected in BY_HAND.items():
        assert tuple(table.loc[rule, ["demo_resnet", "demo_vit"]]) == expected, rule


def test_an_images_limit_and_a_backbones_own_settings_count(tmp_path):
    edition = read("smoke", tmp_path)
    entry = edition.config["backbones"]["demo_resnet"]
    entry |= {"limits": {"rise": 2}, "options": {"rise": {"masks": 5}}, "train": {"steps": 7}}
    case = Case(edition, "demo_resnet", CNN)
    assert case.counts("images")["rise"] == 2 and case.counts("road_images")["rise"] == 2
    assert case.map_of("rise") == ("RISE", 5)
    assert list(counts.train(case)) == [("training step", 3 * 7 * 8)] * 2
    assert case.map_of("captum:Occlusion") == ("forward", 2)  # whatever it does
    kinds = [part for part in counts.road(case) if part[0] == "RISE"]
    assert kinds == [("RISE", 0)]  # kept by the evaluation
    edition.config["evaluate"]["images"] = 1
    assert ("RISE", 5.0) in list(counts.road(case))  # of which it made one map alone


def test_a_step_is_counted_by_its_recipe(tmp_path):
    """Amortised RISE: an image as it is, and each of its masks, with no way back."""
    edition = read("smoke", tmp_path)
    edition.config["evaluate"]["methods"] = ["t-tame", "t-tame-rise"]
    own = {"trained": {"t-tame-rise": {"masks": 5, "steps": 4, "batch_size": 2}}}
    edition.config["backbones"]["demo_vit"] |= own
    case = Case(edition, "demo_vit", VIT)
    trained = [("training step", 3 * 3 * 8), ("explain", 4 * 2), ("RISE", 5 * 4 * 2)]
    assert list(counts.train(case)) == trained
    # 1 and 3 steps, of which the 3 are there, and of amortised RISE 1, 3 and 4, of which the 4 are:
    # the images as they are of the longest serve all
    found = [part for part in counts.convergence(case) if part[0] not in ("forward", ASKED)]
    assert found == [
        *[("training step", (2 * 1 + 3) * 8), ("explain", 4 * 3)],
        *[("explain", (4 - 3) * 2), ("RISE", 5 * (1 + 3) * 2), ("explain", 4 * 4)],
    ]
    edition.config["converge"]["changed"] = {"t-tame-rise": [{"masks": 7}, {"seed": 1, "steps": 2}]}
    found = [part for part in counts.convergence(case) if part[0] not in ("forward", ASKED)]
    assert found[4:] == [
        *[("explain", 4 * 2), ("RISE", 7 * 4 * 2), ("explain", 2 * 2), ("RISE", 5 * 2 * 2)],
        ("explain", 4 * (4 + 2)),
    ]
    edition.config["train"] |= {"objective": "rise", "masks": 4}
    assert list(counts.train(case))[:2] == [("explain", 3 * 8), ("RISE", 4 * 3 * 8)]
    assert list(counts.hyperparameters(case))[:2] == [
        *[("explain", 3 * 8), ("RISE", 4 * (2 * (2 + 3) - 3) * 8)]
    ]
    edition.config["train"] |= {"objective": "both"}
    assert list(counts.train(case))[:2] == [("training step", 3 * 3 * 8), ("RISE", 4 * 3 * 8)]
    edition.config["train"] |= {"objective": "rise"}
    # twelve trainings of two steps; the images' own forward once, a seed's, and in training mode
    assert list(counts.ablations(case))[:2] == [("explain", 3 * 2 * 8), ("RISE", 4 * 12 * 2 * 8)]


def test_an_edition_that_does_not_say_how_many_images_it_has_is_told(tmp_path):
    edition = read("smoke", tmp_path)
    del edition.config["data"]["digits"]["test"]
    with pytest.raises(tt.TTAMEError, match=r"data\.digits does not say how many images test has"):
        count(edition, {"demo_resnet": CNN, "demo_vit": VIT})


@pytest.mark.parametrize("name", ["demo_vgg", "demo_resnet", "demo_vit"])
def test_what_is_counted_of_the_studies_is_what_they_list(name, tmp_path):
    edition = read("demo", tmp_path)
    backbone = tt.load_backbone(name, None, edition.entry(name).get("taps"))
    of, recipe = classifier_of(edition, name), edition.recipe(name)
    listed = ablations(backbone, recipe, edition.config["ablate"]["seeds"])
    different = set()
    for row in listed:
        taps = named_taps(name).get(row.taps, row.taps) if isinstance(row.taps, str) else row.taps
        changed = replace(recipe, **row.changes)
        masking = row.masking or backbone.masking
        different.add((row.variant, tuple(taps or backbone.taps), masking, changed, row.seed))
    settings = edition.config["ablate"]
    parts = {}
    for kind, forwards in counts.ablations(Case(edition, name, of)):
        parts[kind] = forwards
    with_others = [d for d in different if d[-1] == 0 and d[-2].backbone_mode == "eval"]
    forwards = 3 * len(different) - (len(with_others) - 1)  # one serves all of these
    assert parts["training step"] == forwards * settings["steps"] * recipe.batch_size
    assert parts["explain"] == len(listed) * settings["images"]
    ((_, trained), *_) = counts.hyperparameters(Case(edition, name, of))
    steps = [each.steps for each in grid(edition, name) if each != recipe]
    assert trained == (2 * sum(steps) + max(steps)) * recipe.batch_size
    assert of.parts == len(stages(backbone.model, backbone.taps))
    assert len(LABELS) == counts.VARIANTS_SHOWN


def test_a_classifier_is_looked_at_without_its_weights(tmp_path):
    edition = read("imagenet", tmp_path)
    found = {name: classifier_of(edition, name) for name in edition.backbones}
    assert {name: of.channels for name, of in found.items()} == {
        "vgg16": 512,
        "resnet50": 2048,
        "vit_b_16": 768,
    }
    assert [of.tokens for of in found.values()] == [False, False, True]
    assert [of.variants for of in found.values()] == [12, 6, 6]  # of a VGG by two sets of taps
    # three linear layers of VGG-16's 15.5 GMAC, ResNet-50's of 4.1; a block of twelve
    behind = [512 * 49 * 4096 + 4096**2 + 4096 * 1000, 2048 * 1000]
    expected = [behind[0] / 15.47e9, behind[1] / 4.089e9, 1 / 12]
    assert [of.behind for of in found.values()] == pytest.approx(expected, rel=0.01)


SMALL = {"rise": {"masks": 40}, "iia": {"steps": 3}, "integrated-gradients": {"steps": 5}}


@pytest.mark.parametrize("name", ["demo_resnet", "demo_vit"])
def test_the_arithmetic_of_a_map_is_what_pytorch_counts(name, tmp_path):
    edition = read("demo", tmp_path)
    of = classifier_of(edition, name)
    backbone = tt.load_backbone(name, None, edition.entry(name).get("taps"))
    image = torch.rand(1, 3, 64, 64)
    classes = backbone(image).argmax(1)

    def arithmetic(function):
        with metered() as (flops, _):
            function()
        return flops.get_total_flops()

    with torch.no_grad():
        bare = arithmetic(lambda: backbone(image))
    for method in tt.METHODS:
        options = SMALL.get(method, {})
        try:
            explain = tt.method(method, backbone, **options)
        except NotServedError:
            assert not counts.serves(method, of.tokens), method
            continue
        assert counts.serves(method, of.tokens), method
        _, told = counts.one_map(method, of, options)
        found = arithmetic(lambda explain=explain: explain(image, classes)) / bare
        close = 0.25 if method == "transformer-lrp" else 0.1
        assert told == pytest.approx(found, rel=close, abs=0.01), method
