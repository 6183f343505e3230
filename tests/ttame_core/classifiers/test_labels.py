"""Classes in words."""

import numpy as np
import pytest
import torch

import ttame_core as tt
from ttame_core.classifiers.labels import IMAGENET_CLASSES, chosen_classes, find_class

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
