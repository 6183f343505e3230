"""Pictures: the same file each time, each map beside its own image."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.collections import QuadMesh

import ttame_core as tt
from ttame_book.report import charts, maps
from ttame_core.images.explanation import colours_of, overlay


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_gallery_is_the_same_file_each_time(tmp_path, suffix):
    charts.theme()
    images = torch.rand(3, 3, 16, 16)
    for name in ("a", "b"):
        figure = maps.gallery(images, {"one": torch.rand(3, 4, 4).mul(0), "two": images[:, 0]})
        assert (
            len(figure.axes) == 12 + 1
        )  # an image and its two maps, twice in a line; one colour bar
        (bar,) = [c for c in figure.axes[-1].collections if isinstance(c, QuadMesh)]
        relevance = np.linspace(0, 1, 256)
        assert np.allclose(bar.get_cmap()(relevance)[:, :3], colours_of(relevance), atol=1e-6)
        figure.savefig(
            tmp_path / f"{name}.{suffix}", metadata={"Date": None} if suffix == "svg" else None
        )
        plt.close(figure)
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def drawn(figure):
    """What is drawn where: the line, the place in it, the picture and its title."""
    found = [axis for axis in figure.axes if axis.images]
    places = [axis.get_subplotspec() for axis in found]
    return {
        (place.rowspan.start, place.colspan.start): (axis.images[0].get_array(), axis.get_title())
        for axis, place in zip(found, places, strict=True)
    }


def test_maps_are_beside_their_image_several_images_in_a_line(noise):
    images = noise.images[:5]
    heats = torch.rand(5, 4, 4)
    figure = maps.gallery(images, {"rise": heats, "mine": heats[:4]}, list("abcde"))
    found = drawn(figure)
    size = 3  # an image and its maps: two of them in a line of eight
    for i, image in enumerate(images):
        line, left = i // 2, size * (i % 2)
        picture, title = found.pop((line, left))
        assert np.allclose(picture, image.permute(1, 2, 0)) and title == "abcde"[i]
        for k, name in enumerate(["RISE", "mine"][: 2 - (i == 4)]):  # of the last one map alone
            picture, title = found.pop((line, left + 1 + k))
            expected = overlay(image, maps._scaled(heats[i], image))
            assert np.array_equal(picture, np.asarray(expected)) and title == name
    assert not found
    assert not any(axis.axison for axis in figure.axes[:-1])
    plt.close(figure)


def test_many_maps_of_an_image_go_on_below_the_first(noise):
    images, heats = noise.images[:2], torch.rand(2, 4, 4)
    figure = maps.gallery(images, {f"m{i}": heats for i in range(9)})
    first = [(0, place) for place in range(8)] + [(1, 1), (1, 2)]
    found = drawn(figure)
    assert set(found) == {*first, *((line + 2, place) for line, place in first)}
    assert found[1, 2][1] == found[3, 2][1] == "m8"
    plt.close(figure)


def test_images_of_several_backbones_have_each_ones_map_beside_them(tiny, noise):
    items = [{**noise[i], "label": i % 3} for i in range(3)]
    explainer = tt.TTAME(tiny).eval()
    explained = [(explainer, items, explainer(noise.images[:3]))] * 2
    figure = maps.backbones_gallery(explained)
    found = drawn(figure)
    assert len(found) == 9
    titles = maps.class_titles(tiny, explained[0][2])
    for i, item in enumerate(items):
        line, left = i // 2, 3 * (i % 2)
        picture, title = found[line, left]
        assert np.allclose(picture, item["image"].permute(1, 2, 0))
        assert title == f"class {item['label']}"
        expected = overlay(item["image"], explained[0][2].maps[i])
        for place in (left + 1, left + 2):
            picture, title = found[line, place]
            assert np.array_equal(picture, np.asarray(expected))
            assert title.replace("\n", " ") == f"tiny {titles[i]}"
    plt.close(figure)


def test_four_pictures_have_a_line_of_their_own_and_three_share_one():
    images = torch.rand(3, 3, 16, 16)
    for count, lines in ((3, 3), (2, 2)):
        figure = maps.gallery(images, {f"m{i}": images[:, 0] for i in range(count)})
        assert {line for line, _ in drawn(figure)} == set(range(lines))
        plt.close(figure)
