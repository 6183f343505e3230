"""What an evaluation is not asked for: each is refused in words, before any work where it can be."""

import copy
import functools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ttame_core as tt
from ttame_core.metrics.cache import KeptMaps

IMAGES = torch.rand(2, 3, 16, 16)
MASK = torch.zeros(2, 16, 16, dtype=torch.bool)


def ones(images, classes):
    return torch.rand(len(images), 4, 4)


def never(images, classes):
    raise AssertionError("explained all the same")


def batch(**changes):
    """A batch of two images, with what is changed; what is ... is left out."""
    whole = {"image": IMAGES, "id": ["a", "b"], **changes}
    return {key: value for key, value in whole.items() if value is not ...}


@pytest.fixture
def other(tiny):
    """The classifier with one weight changed."""
    model = copy.deepcopy(tiny.model)
    with torch.no_grad():
        model.head.bias += 1
    return tt.Backbone(model, tiny.taps, name="other", preprocessing=tiny.preprocessing)


@pytest.mark.happens(
    "Measures and methods",
    "an explainer of another classifier is to be scored by {how}",
    "refused, both named",
)
@pytest.mark.parametrize("how", ["its bound method", "a partial of it", "a wrapper", "kept maps"])
def test_an_explainer_of_another_classifier_is_found_behind_what_is_called(
    how, tiny, other, tmp_path
):
    explainer = tt.TTAME(other)

    @functools.wraps(explainer.explain)
    def wrapper(images, classes):
        raise AssertionError("explained all the same")

    method = {
        "its bound method": explainer.explain,
        "a partial of it": functools.partial(functools.partial(explainer.explain)),
        "a wrapper": wrapper,
        "kept maps": KeptMaps(tt.method("rise", other, masks=2), tmp_path, ""),
    }[how]
    with pytest.raises(tt.TTAMEError, match="t explains other, and tiny is to be asked"):
        tt.evaluate(tiny, {"t": method}, [batch()])
    same = functools.partial(tt.TTAME(tiny).explain)
    assert len(tt.evaluate(tiny, {"t": same}, [batch()]))


@pytest.mark.happens(
    "Measures and methods",
    "an explainer of the same weights behind another {field} is to be scored",
    "refused, with both",
)
@pytest.mark.parametrize(
    ("field", "value"), [("mean", (0.5,) * 3), ("std", (0.5,) * 3), ("bgr", True)]
)
def test_an_explainer_behind_another_standardisation_is_not_scored(tiny, field, value):
    altered = replace(tiny.preprocessing, **{field: value})
    other = tt.Backbone(tiny.model, tiny.taps, name="other", preprocessing=altered)
    with pytest.raises(tt.TTAMEError, match=rf"behind another standardisation \({field} "):
        tt.evaluate(tiny, {"t": tt.TTAME(other).explain}, [batch()])
    # how pictures are resized is none of its business: it is given images
    resized = replace(tiny.preprocessing, resize=32, interpolation="bicubic")
    same = tt.Backbone(tiny.model, tiny.taps, preprocessing=resized)
    assert len(tt.evaluate(tiny, {"t": tt.TTAME(same)}, [batch()]))


def test_a_backbone_of_another_kind_and_wrappers_in_circles_are_passed_over(tiny):
    def circle(images, classes):
        return ones(images, classes)

    circle.backbone, circle.__wrapped__ = SimpleNamespace(name="of a user"), circle
    assert len(tt.evaluate(tiny, {"t": circle}, [batch()]))


def test_maps_that_are_constant_on_purpose_may_be_so_behind_a_partial(tiny):
    method = functools.partial(tt.method("all-ones", tiny))
    scores = tt.evaluate(tiny, {"ones": method}, [batch()])
    assert (scores[scores["measure"] == "invalid"]["value"] == 0).all()


@pytest.mark.happens(
    "Measures and methods",
    "the classifier's confidences are not finite for some images of an evaluation",
    "refused, and their ids named",
)
def test_images_whose_confidences_are_not_finite_are_named(tiny, monkeypatch):
    logits = tiny.logits

    def overflowing(inputs):
        found = logits(inputs).clone()
        found[inputs.flatten(1).amax(1) > 2.6] = torch.inf
        return found

    monkeypatch.setattr(tiny, "logits", overflowing)
    images = IMAGES / 2
    images[1, :, 0, 0] = 1
    with pytest.raises(tt.TTAMEError, match=r"of tiny are not finite for the images \['b'\]"):
        tt.evaluate(tiny, {"t": never}, [batch(image=images)])
    full, classes = torch.full((2,), 0.5), torch.zeros(2).long()
    with pytest.raises(tt.TTAMEError, match=r"once the images are changed .*at \[1\] of the batch"):
        tt.score_batch(tiny, images, classes, full, torch.ones(2, 4, 4), allow_constant=True)


BATCHES = {
    "that has an id too few": ([batch(id=["a"])], "a batch has 1 ids and 2 images"),
    "whose ids are None": ([batch(id=None)], "the ids of a batch are None"),
    "with an id that is None": ([batch(id=["a", None])], "an id of a batch is None"),
    "whose ids are one text": ([batch(id="ab")], "the ids of a batch are 'ab'; expected a list"),
    "with one id twice": ([batch(id=["a", "a"])], "the id 'a' comes twice"),
    "with an earlier batch's id": ([batch(), batch()], "the id 'a' comes twice"),
    "without ids": ([batch(id=...)], r"a batch has \['image'\]; expected ids too"),
    "without images": (
        [batch(image=...)],
        r"a batch has \['id'\]; expected images too, as 'image'",
    ),
    "that is a dict, in no list": (batch(), "batches are a dict; .*put the one batch into a list"),
    "that is a tensor, in no list": (IMAGES, "batches are a Tensor; expected batches"),
    "that is none": (None, "batches are None; expected a list or a DataLoader"),
    "that is a pair": ([(IMAGES, torch.tensor([1, 2]))], "a batch is a tuple; expected a dict"),
    "that is a tensor": ([IMAGES], "a batch is a Tensor; expected a dict"),
    "whose mask is of floats": ([batch(mask=MASK.float())], "mask is .*float32; expected a tensor"),
    "whose mask is of another size": ([batch(mask=MASK[:, :8])], r"mask is \(2, 8, 16\)"),
    "whose mask has a channel": ([batch(mask=MASK[:, None])], r"mask is \(2, 1, 16, 16\)"),
    "whose mask is an array": ([batch(mask=MASK.numpy())], "mask is a ndarray; expected a tensor"),
}


@pytest.mark.happens("Measures and methods", "an evaluation is given a batch {name}", "{message}")
@pytest.mark.parametrize(
    ("name", "batches", "message"), [(name, *case) for name, case in BATCHES.items()]
)
def test_batches_that_cannot_be_scored_are_refused_before_any_is(name, batches, message, tiny):
    with pytest.raises(tt.TTAMEError, match=message):
        tt.evaluate(tiny, {"m": never}, batches)


def test_batches_of_a_loader_are_looked_at_as_they_come(tiny):
    with pytest.raises(tt.TTAMEError, match="the id 'a' comes twice"):
        tt.evaluate(tiny, {"m": ones}, iter([batch(), batch()]))


@pytest.mark.parametrize(
    "ids", [(1, 2), torch.tensor([1, 2]), np.array([1, 2])], ids=["tuple", "tensor", "array"]
)
def test_ids_may_be_numbers_as_loaders_collate_them(ids, tiny):
    scores = tt.evaluate(tiny, {"m": ones}, [batch(id=ids)])
    assert sorted(set(scores["image_id"])) == [1, 2]


ASKED = {
    "methods in a list": ({"methods": ["rise"]}, r"methods is \['rise'\]; expected a dict of"),
    "a method's name": (
        {"methods": {"m": "grad-cam"}},
        r"the method 'm' is 'grad-cam'; .*tt.method\('grad-cam', backbone\)",
    ),
    "measures in a list": ({"measures": ["ad"]}, r"measures is \['ad'\]; .*tt.MASKING"),
    "a number for a measure": ({"measures": {"ad": 50}}, r"'ad' is 50; .*as \{'ad': \[50\]\}"),
    "a text for a percentage": ({"measures": {"ad": ["50"]}}, "'ad' is '50'; expected a finite"),
    "a text for percentages": ({"measures": {"ad": "50"}}, "'ad' is '50'; expected a list"),
    "a percentage that is NaN": ({"measures": {"ad": [float("nan")]}}, "'ad' is nan"),
    "chunk -1": ({"chunk": -1}, "chunk is -1; expected a whole number, at least 1"),
    "chunk 0": ({"chunk": 0}, "chunk is 0; expected a whole number, at least 1"),
    "chunk 1.5": ({"chunk": 1.5}, "chunk is 1.5; expected a whole number, at least 1"),
    "seed “a”": ({"seed": "a"}, "seed is 'a'; expected a whole number, at least 0"),
    "seed -1": ({"seed": -1}, "seed is -1; expected a whole number, at least 0"),
    "True for progress": (
        {"progress": True},
        "progress or confidences is True; expected a callable",
    ),
}


@pytest.mark.happens("Measures and methods", "an evaluation is given {name}", "{message}")
@pytest.mark.parametrize(
    ("name", "changes", "message"), [(name, *case) for name, case in ASKED.items()]
)
def test_what_no_evaluation_can_be_asked_for(name, changes, message, tiny):
    given = {"methods": {"m": never}, "batches": [batch()], **changes}
    with pytest.raises(tt.TTAMEError, match=message):
        tt.evaluate(tiny, **given)
    scored = {key: value for key, value in changes.items() if key in ("measures", "seed", "chunk")}
    if scored:
        classes, full = torch.zeros(2).long(), torch.full((2,), 0.5)
        with pytest.raises(tt.TTAMEError, match=message):
            tt.score_batch(tiny, IMAGES, classes, full, torch.rand(2, 4, 4), **scored)


@pytest.mark.happens(
    "Measures and methods",
    "an explainer stands in a backbone's place in an evaluation",
    "refused: “expected a tt.Backbone: the explainer's own, explainer.backbone”",
)
def test_an_explainer_is_no_backbone(tiny):
    message = "expected a tt.Backbone: the explainer's own, explainer.backbone"
    with pytest.raises(tt.TTAMEError, match=message):
        tt.evaluate(tt.TTAME(tiny), {"m": never}, [batch()])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"full": None}, r"full is None; expected a tensor \(2,\) of softmax scores"),
        ({"full": torch.rand(3)}, r"full is \(3,\) torch.float32; expected a tensor \(2,\)"),
        ({"full": torch.full((2,), 50.0)}, "full ranges from 50 to 50; expected"),
        ({"full": torch.full((2,), torch.nan)}, "full ranges from nan to nan; expected"),
        (
            {"truth": MASK[:1]},
            r"truth is \(1, 16, 16\) torch.bool; expected a tensor \(2, 16, 16\)",
        ),
        ({"truth": MASK.float()}, "truth is .*float32; expected .* bool, true on the object"),
        ({"backbone": "resnet18"}, r"expected a tt.Backbone: tt.load_backbone\('resnet18'\)"),
        ({"confidences": 3}, "confidences is 3; expected a callable"),
    ],
)
def test_what_no_batch_can_be_scored_with(changes, message, tiny):
    given = {
        **{"backbone": tiny, "images": IMAGES, "classes": torch.zeros(2).long()},
        **{"full": torch.full((2,), 0.5), "maps": torch.rand(2, 4, 4)},
        **changes,
    }
    with pytest.raises(tt.TTAMEError, match=message):
        tt.score_batch(**given)
