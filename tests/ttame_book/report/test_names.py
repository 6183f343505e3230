"""Names for people, and the methods that a figure puts in colour."""

import pandas as pd
import pytest

from ttame_book.report.names import (
    GRAD_CAM,
    NAMES,
    OTHER,
    RECIPE,
    RISE,
    VARIANT,
    cast_roles,
    rivals_of,
    shown_name,
)
from ttame_core.methods.registry import METHODS
from ttame_core.recipes import TRAINED


def means(**of):
    """Means of AD(50), and of IC(50) the other way round; a tuple has n too."""
    rows = []
    for name, found in of.items():
        mean, n = found if isinstance(found, tuple) else (found, 100)
        name = name.replace("_", "-")
        rows += [(name, "ad", 50, n, mean), (name, "ic", 50, n, mean), (name, "ad", 15, n, -mean)]
    return pd.DataFrame(rows, columns=["method", "measure", "v", "n", "mean"])


def test_every_method_has_a_name_of_its_own_and_what_is_unknown_keeps_its_own():
    assert {*TRAINED, *METHODS} <= NAMES.keys()
    assert len(set(NAMES.values())) == len(NAMES)
    assert shown_name("vit_ti_16") == "ViT-Tiny" and shown_name("grad-cam") == "Grad-CAM"
    assert shown_name("mine") == "mine" and shown_name("no skip, no norm") == "no skip, no norm"
    assert shown_name("brightness, mismatched") == "Brightness (control), mismatched"
    assert shown_name("rise, 500 masks") == "RISE, 500 masks"


def test_rivals_are_neither_variants_nor_controls():
    named = ["random", "rise", "t-tame-top", "mine", "rise", "t-tame", "l-cam-img"]
    assert rivals_of(named) == ["rise", "mine", "l-cam-img"]


def test_the_best_variant_and_the_best_other_rival_are_by_the_measures_direction():
    table = means(
        **{"t_tame": 40, "t_tame_top": 30, "t_tame_rise": 35, "random": 1, "rise": 5},
        **{"grad_cam": 6, "iia": 20, "layer_cam": 10, "score_cam": (2, 80)},
    )
    expected = {RECIPE: "t-tame", VARIANT: "t-tame-top", RISE: "rise", GRAD_CAM: "grad-cam"}
    found = cast_roles(table)
    assert found == {**expected, OTHER: "layer-cam"}  # of Score-CAM there are too few images
    assert list(found) == [RECIPE, VARIANT, RISE, GRAD_CAM, OTHER]
    assert cast_roles(table, "ic") == {**expected, VARIANT: "t-tame-rise", OTHER: "iia"}
    assert cast_roles(table, "ad", 15) == {**expected, VARIANT: "t-tame-rise", OTHER: "iia"}


@pytest.mark.happens(
    "Unusual settings",
    "an edition that compares few methods, or not at 50 %",
    "figures have in colour what there is",
)
def test_roles_that_no_method_can_take_are_left_out():
    assert cast_roles(means(t_tame=1, brightness=0)) == {RECIPE: "t-tame"}
    assert cast_roles(means(iia=1)) == {OTHER: "iia"}
    assert cast_roles(means(t_tame=1), "ad", 30) == {}
