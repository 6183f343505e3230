"""What can be chosen, and what cannot."""

import math

import numpy as np
import pytest

import ttame_core as tt
from ttame_core.recipes import MASKS, MODES, OBJECTIVES, OPTIMIZERS, OTHER_CLASSES, STARTS, TRAINED

NUMBER = "expected a finite number"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"other_classes": "inbatch"}, "did you mean 'in-batch'"),
        *(
            ({"steps": n}, "steps is .*; expected a whole number, at least 1")
            for n in (0, 2.5, "3")
        ),
        ({"steps": math.nan}, "steps is nan; expected a whole number"),
        *(({"batch_size": n}, "batch_size is .* whole number, at least 2") for n in (1, 4.0, True)),
        *(({"max_lr": n}, f"max_lr is .*; {NUMBER}") for n in (-1.0, 0, math.nan, math.inf, 1e9)),
        *(({"momentum": n}, f"momentum is .*; {NUMBER}") for n in (5, 1, math.nan, "0", -0.1)),
        *(({"weight_decay": n}, f"weight_decay is .*; {NUMBER}") for n in (-1, 2, None)),
        ({"objective": "rice"}, "objective 'rice' is unknown; did you mean 'rise'"),
        ({"optimizer": "adam"}, "optimizer 'adam' is unknown; did you mean 'adamw'"),
        *(({"masks": n}, "masks is .* whole number, at least 2") for n in (1, 2.5, "auto")),
        ({"cells": 0}, "cells is 0; expected a whole number, at least 1"),
        *(({"p": n}, f"p is .*; {NUMBER}") for n in (0, 1, math.nan)),
        *(
            (
                given,
                r"\w+ is {}, of amortised RISE; set objective='rise' too".format(*given.values()),
            )
            for given in ({"masks": 50}, {"cells": 4}, {"p": 0.25})
        ),
        ({"loss": {"ce": 1}}, "loss is {'ce': 1}; expected tt.LossWeights"),
        ({"loss": None}, "loss is None; expected tt.LossWeights"),
    ],
)
@pytest.mark.happens("Training and explaining", "a recipe with {options}", "{message}")
def test_recipes_that_cannot_be(options, message):
    with pytest.raises(tt.TTAMEError, match=message):
        tt.Recipe(**options)


@pytest.mark.parametrize(
    ("name", "value"),
    [("ce", "1"), ("area", -1), ("variation", math.nan), ("power", -1), ("power", 0), ("ce", 1e9)],
)
def test_weights_of_the_loss_that_cannot_be(name, value):
    with pytest.raises(tt.TTAMEError, match=f"{name} is {value!r}; {NUMBER}"):
        tt.LossWeights(**{name: value})
    with pytest.raises(tt.TTAMEError, match="released_variation is 3; expected True or False"):
        tt.LossWeights(released_variation=3)


def test_numbers_of_numpy_are_plain_ones_in_a_recipe():
    recipe = tt.Recipe(steps=np.int64(3), max_lr=np.float32(0.5), momentum=0, weight_decay=1)
    assert [type(v) for v in (recipe.steps, recipe.max_lr, recipe.momentum)] == [int, float, int]
    assert recipe == tt.Recipe(steps=3, max_lr=0.5, momentum=0, weight_decay=1)


def test_the_default_recipe_is_the_papers():
    assert tt.Recipe() == tt.Recipe(
        **{"steps": 8 * 1_280_000 // 32, "batch_size": 32, "max_lr": 1e-3, "momentum": 0.9},
        **{"weight_decay": 5e-4, "other_classes": "uniform", "backbone_mode": "eval"},
        **{"objective": "ttame", "optimizer": "sgd", "masks": 3, "cells": 7, "p": 0.5},
        **{"start": "random", "mask": "sigmoid", "loss": tt.LossWeights(1.5, 2.0, 0.005, 0.3)},
    )
    choices = {"other_classes": OTHER_CLASSES, "backbone_mode": MODES}
    choices |= {"objective": OBJECTIVES, "optimizer": OPTIMIZERS}
    for name, valid in {**choices, "start": STARTS, "mask": MASKS}.items():
        for value in valid:
            assert getattr(tt.Recipe(**{name: value}), name) == value


def test_the_papers_method_and_its_rival_are_trained_with_nothing_beyond_the_paper(tiny):
    of_paper = {name for name in tt.VARIANTS if tt.TTAME(tiny, name).attention.scales is None}
    for name in ("t-tame", "l-cam-img"):
        settings = TRAINED[name].settings
        assert not settings.keys() & {"start", "mask", "loss", "objective", "optimizer"}
        assert settings.get("variant", "proposed") in of_paper
    assert TRAINED["t-tame"].settings == {}


@pytest.mark.parametrize("name", TRAINED)
def test_what_a_trained_method_sets_is_a_variant_a_recipes_field_or_taps(name, tiny):
    trained = TRAINED[name]
    for settings in (trained.settings, trained.settings | (trained.on_tokens or {})):
        settings = dict(settings)
        assert settings.pop("variant", "proposed") in tt.VARIANTS
        settings.pop("taps", None)
        tt.Recipe(**settings | {"loss": tt.LossWeights(**settings.get("loss", {}))})


def test_every_compared_method_can_be_made(tiny):
    vit = tt.load_backbone("demo_vit", None)
    for name in tt.METHODS:
        assert callable(tt.method(name, vit)), name
    assert not tt.METHODS.keys() & TRAINED.keys()
    assert tt.CONTROLS == ("brightness", "random", "all-ones")
    assert [getattr(tt.method(name, tiny), "constant", False) for name in tt.CONTROLS] == [
        *(False, False, True)
    ]
