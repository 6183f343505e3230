"""Classes in words."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.data import ImageNetInfo
from torch import nn

import ttame_core as tt
from ttame_core.classifiers.labels import (
    IMAGENET_CLASSES,
    chosen_classes,
    class_names,
    find_class,
)

LABELS = ("tabby cat", "Egyptian_cat", "dog", "hot dog")
SCORES = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.15, 0.05]])


def test_classes_of_imagenet_go_by_their_names(tiny, monkeypatch):
    monkeypatch.setattr(tiny, "num_classes", 1000)
    assert tiny.class_index("Egyptian cat") == tiny.class_index("egyptian") == 285
    assert tiny.class_index("285") == tiny.class_index("egyptian_cat") == 285
    with pytest.raises(tt.TTAMEError, match=r"classes of .* go by 'cat': .*Egyptian cat \(285\)"):
        tiny.class_index("cat")
    assert tiny.labels == IMAGENET_CLASSES and tiny.label(0) == "tench"


def test_classes_without_names_go_by_their_numbers(tiny):
    assert tiny.labels == tuple(f"class {i}" for i in range(8)) and tiny.label(3) == "class 3"


@pytest.mark.happens(
    "Preprocessing and labels",
    "a classifier of 12,000 or 21,000 ImageNet classes",
    "timm's names of them",
)
def test_timms_larger_parts_of_imagenet_have_their_names():
    for count, subset in ((11821, "imagenet-12k"), (21843, "imagenet-21k-goog")):
        model = timm.create_model("test_vit", num_classes=count)
        names = class_names(model, count)
        assert len(names) == count and names == tuple(ImageNetInfo(subset).label_descriptions())
        assert class_names(nn.Linear(1, count), count)[7] == "class 7"  # nobody says what it is
    few = timm.create_model("test_vit", num_classes=10)
    assert class_names(few, 10) == tuple(f"class {i}" for i in range(10))
    usual = timm.create_model("test_vit")
    assert class_names(usual, 1000) == IMAGENET_CLASSES


@pytest.mark.happens(
    "Preprocessing and labels",
    "timm's weights that bring names",
    "those names",
)
def test_names_that_come_with_timms_weights_come_first():
    model = timm.create_model("test_vit")
    model.pretrained_cfg["label_names"] = [f"n{i}" for i in range(1000)]
    assert class_names(model, 1000)[999] == "n999"
    model.pretrained_cfg["label_descriptions"] = {"n3": "a great white"}
    assert class_names(model, 1000)[2:4] == ("n2", "a great white")
    # names of the published head are none of another one's
    assert class_names(model, 2000)[0] == "class 0"


@pytest.mark.parametrize(
    ("words", "index"),
    [
        *((" 3 ", 3), ("tabby", 0), ("EGYPTIAN CAT", 1), ("egyptian_cat", 1)),
        ("dog", 2),  # the whole name before a part of another
        ("hot", 3),
    ],
)
def test_a_class_is_found_by_number_name_or_part_of_it(words, index):
    assert find_class(words, LABELS, "mine") == index


@pytest.mark.happens(
    "Preprocessing and labels",
    "classes that are called “0”, “1”, “10”",
    "the name counts first, then the number",
)
def test_a_name_that_is_a_number_comes_before_the_number():
    labels = ("0", "1", "10", "-1", "20")
    asked = {"10": 2, "1": 1, "0": 0, "-1": 3, "20": 4, "4": 4, "2": 2}
    assert {words: find_class(words, labels, "mine") for words in asked} == asked
    with pytest.raises(tt.TTAMEError, match="class 5 of mine; expected 0 to 4"):
        find_class("5", labels, "mine")
    # numbers that are no words are numbers
    scores = torch.zeros(1, 5)
    assert chosen_classes([1, "10", np.int64(4)], scores, labels, "mine").tolist() == [[1, 2, 4]]
    assert chosen_classes(np.array([0, 1]), scores, labels, "mine").tolist() == [[0, 1]]


@pytest.mark.happens(
    "Preprocessing and labels",
    "two classes of one name",
    "ambiguous: told with their numbers",
)
def test_classes_of_one_name_are_told_apart_by_their_numbers():
    labels = ("crane", "dog", "Crane", "crane")
    with pytest.raises(tt.TTAMEError, match=r"2 classes .*crane \(0\), crane \(3\); say which"):
        find_class("crane", labels, "mine")
    assert find_class("Crane", labels, "mine") == 2 and find_class("3", labels, "mine") == 3
    with pytest.raises(tt.TTAMEError, match="3 classes of mine go by 'CRANE'"):
        find_class("CRANE", labels, "mine")


@pytest.mark.parametrize("asked", [[9], ["dog", -1], [1.5], [None], [True]])
def test_a_list_of_what_is_no_class(asked):
    with pytest.raises(
        tt.TTAMEError, match=r"class .* of mine(;| is) .*expected|a class of mine is"
    ):
        chosen_classes(asked, SCORES, LABELS, "mine")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("4", "class 4 of mine; expected 0 to 3"),
        ("-1", "class -1 of mine"),
        (" ", "the class is empty"),
        ("cat", r"2 classes of mine go by 'cat': tabby cat \(0\), Egyptian_cat \(1\)"),
        ("dogg", "mine has no class 'dogg'; did you mean 'dog'"),
    ],
)
def test_words_for_no_class_or_several(words, message):
    with pytest.raises(tt.TTAMEError, match=message):
        find_class(words, LABELS, "mine")


@pytest.mark.parametrize(
    ("asked", "classes"),
    [
        (None, [3, 0]),
        (2, [[3, 2], [0, 2]]),
        (np.int64(1), [[3], [0]]),
        ("hot dog", [3, 3]),
        (["hot dog", 0], [[3, 0], [3, 0]]),
        (np.array([1, 2]), [[1, 2], [1, 2]]),
        (torch.tensor([1, 2]), [1, 2]),
        (torch.tensor([[1, 2], [0, 3]]), [[1, 2], [0, 3]]),
    ],
)
def test_classes_are_asked_for_in_many_ways(asked, classes):
    found = chosen_classes(asked, SCORES, LABELS, "mine")
    assert found.dtype == torch.int64 and found.tolist() == classes


def test_a_class_is_found_by_its_number_as_a_number(tiny):
    assert tiny.class_index(3) == find_class(np.int64(3), LABELS, "mine") == 3
    # of classes that are called by numbers it is the place, and no name
    assert find_class(1, ("1", "0"), "mine") == 1 and find_class("1", ("1", "0"), "mine") == 0
    for words in (4, -1):
        with pytest.raises(tt.TTAMEError, match=f"class {words} of mine; expected 0 to 3"):
            find_class(words, LABELS, "mine")
    for words in (None, True, 1.0, b"dog"):
        with pytest.raises(tt.TTAMEError, match=r"a class of mine is .*; expected its name"):
            find_class(words, LABELS, "mine")


@pytest.mark.happens(
    "Preprocessing and labels",
    "`id2label` lists names by what are no numbers",
    "the names in their order",
)
def test_names_that_are_not_listed_by_numbers_are_taken_in_their_order():
    model = nn.Linear(1, 2)
    model.config = SimpleNamespace(id2label={"x": "cat", "y": "dog"})
    assert class_names(model, 2) == ("cat", "dog")
    model.config.id2label = {"1": "cat", "0": "dog"}
    assert class_names(model, 2) == ("dog", "cat")
    model.config.id2label = 3
    assert class_names(model, 2) == ("class 0", "class 1")


@pytest.mark.happens("Images and classes", "the classes asked for are {asked}", "refused")
@pytest.mark.parametrize(
    "asked",
    [
        *(torch.zeros(2, 0).long(), torch.zeros(2).long().to_sparse(), [], b"\x01\x02"),
        *(np.array(3.5), np.zeros((2, 2), int), [10**30], {"dog"}, True, 0, 1.5),
    ],
    ids=str,
)
def test_what_are_no_classes(asked):
    with pytest.raises(tt.TTAMEError):
        chosen_classes(asked, SCORES, LABELS, "mine")


VALUES = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(max_size=3)),
    *(st.sampled_from(LABELS), st.integers(0, 4).map(str), st.text("-0123456789", max_size=5000)),
)


@settings(max_examples=200, deadline=None)
@given(VALUES, st.one_of(VALUES, st.lists(VALUES, max_size=3), st.tuples(VALUES)))
def test_whatever_is_asked_for_is_a_class_in_range_or_the_one_error(words, asked):
    with contextlib.suppress(tt.TTAMEError):
        index = find_class(words, LABELS, "mine")
        assert type(index) is int and 0 <= index < len(LABELS)
    with contextlib.suppress(tt.TTAMEError):
        found = chosen_classes(asked, SCORES, LABELS, "mine")
        assert found.dtype == torch.int64 and len(found) == len(SCORES) and found.numel()
        assert found.min() >= 0 and found.max() < len(LABELS)
