"""A classifier far below its published accuracy is warned of."""

import warnings

import pytest
import torch

from ttame_book.demo.classifiers import load_demo_backbone
from ttame_book.demo.digits import DigitsInPhotographs
from ttame_book.demo.training import accuracy_of
from ttame_book.studies.accuracy import published_accuracy, warn_of_accuracy


def test_accuracies_are_those_that_come_with_the_weights():
    assert published_accuracy("demo_vgg") == 97.0
    assert published_accuracy("resnet50") == 80.858  # IMAGENET1K_V2, torchvision's default
    assert published_accuracy("timm/vit_tiny_patch16_224") is None


@pytest.mark.happens(
    "Preprocessing and labels",
    "a classifier's accuracy on 30 labelled images or more is 25 points below the published one",
    "a warning names both, and what to check",
)
def test_a_classifier_far_below_its_published_accuracy_is_warned_of():
    both = r"x is right on 54\.9 % of 30 labelled images, and 80\.0 % are published; check its prep"
    with pytest.warns(UserWarning, match=both):
        warn_of_accuracy("x", 54.9, 30, 1000, 80.0)
    with pytest.warns(UserWarning, match=r"right on 19\.9 % of 30 .* a guess gets 10 %; check"):
        warn_of_accuracy("x", 19.9, 30, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_accuracy("x", 55.0, 30, 1000, 80.0)
        warn_of_accuracy("x", 0.0, 29, 1000, 80.0)
        warn_of_accuracy("x", 20.0, 30, 10)


def test_wrong_statistics_are_found_out():
    model, data = load_demo_backbone("demo_resnet"), DigitsInPhotographs("test", 60)
    published = published_accuracy("demo_resnet")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_accuracy("demo_resnet", accuracy_of(model, data), len(data), 10, published)

    class Shown(torch.nn.Module):
        """The classifier as it is where pixels are taken to be 0 to 255."""

        def forward(self, images):
            return model(images / 255)

    with pytest.warns(UserWarning, match=r"demo_resnet is right on .* 97\.5 % are published"):
        warn_of_accuracy("demo_resnet", accuracy_of(Shown(), data), len(data), 10, published)
