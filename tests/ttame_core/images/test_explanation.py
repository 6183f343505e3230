"""What an explanation looks like: colours over an image in grey, a panel a map."""

import matplotlib
import numpy as np
import pytest
import torch

import ttame_core as tt
from ttame_core.images.explanation import OPACITY, colours_of, overlay


def test_the_colours_are_matplotlibs_inferno_at_its_anchors_and_near_it_between():
    values = np.linspace(0, 1, 16)
    theirs = matplotlib.colormaps["inferno"]
    assert np.abs(colours_of(values) - theirs(values)[:, :3]).max() < 0.005
    between = np.linspace(0, 1, 301)
    assert np.abs(colours_of(between) - theirs(between)[:, :3]).max() < 0.03
    assert colours_of(np.zeros((4, 5))).shape == (4, 5, 3)


def test_an_overlay_is_the_maps_colours_over_the_image_in_grey():
    image = torch.zeros(3, 4, 6)
    image[0] = 0.9  # red: grey of 0.3
    heat = torch.zeros(4, 6)
    heat[:, 3:] = 1
    found = np.asarray(overlay(image, heat)) / 255
    assert found.shape == (4, 6, 3)
    for place, value in ((0, 0.0), (5, 1.0)):
        expected = OPACITY * colours_of(np.array(value)) + (1 - OPACITY) * 0.3
        assert np.abs(found[:, place] - expected).max() < 0.005
    coarse = np.asarray(overlay(image, torch.tensor([[0.0, 1.0]])))  # enlarged
    assert (np.diff(coarse[0, :, 0].astype(int)) >= 0).all() and coarse[0, 0, 0] < coarse[0, 5, 0]


@pytest.mark.parametrize("several", [False, True])
def test_a_plot_has_the_image_and_each_of_its_maps_beside_it(several, tiny, noise):
    images = noise.images[:2]
    explanation = tt.TTAME(tiny)(images, torch.tensor([[3, 5], [1, 0]]) if several else None)
    figure = explanation.plot()
    columns = 3 if several else 2
    assert len(figure.axes) == 2 * columns
    for row in range(2):
        first, *others = figure.axes[row * columns : (row + 1) * columns]
        assert np.allclose(first.images[0].get_array(), images[row].permute(1, 2, 0))
        maps = explanation.maps[row] if several else explanation.maps[row][None]
        classes = explanation.classes[row].reshape(-1).tolist()
        scores = explanation.confidences[row].reshape(-1).tolist()
        for axis, heat, c, score in zip(others, maps, classes, scores, strict=True):
            assert axis.get_title() == f"class {c}, {100 * score:.0f}\N{NO-BREAK SPACE}%"
            expected = np.asarray(overlay(images[row], heat))
            assert np.array_equal(axis.images[0].get_array(), expected)
    matplotlib.pyplot.close(figure)
