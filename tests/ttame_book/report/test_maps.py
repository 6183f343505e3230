"""Pictures: the same file each time, each map under its own image."""

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
        assert len(figure.axes) == 9 + 1  # three rows of three, one colour bar
        (bar,) = [c for c in figure.axes[-1].collections if isinstance(c, QuadMesh)]
        relevance = np.linspace(0, 1, 256)
        assert np.allclose(bar.get_cmap()(relevance)[:, :3], colours_of(relevance), atol=1e-6)
        figure.savefig(
            tmp_path / f"{name}.{suffix}", metadata={"Date": None} if suffix == "svg" else None
        )
        plt.close(figure)
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_many_images_of_several_backbones_go_below_each_other(tiny, noise):
    items = [{**noise[i], "label": i % 3} for i in range(8)]
    explainer = tt.TTAME(tiny).eval()
    explained = [(explainer, items, explainer(noise.images[:8]))] * 2
    figure = maps.backbones_gallery(explained)
    *axes, _ = figure.axes
    assert len(axes) == 2 * 3 * 6  # blocks, rows, images
    drawn = [i for i, axis in enumerate(axes) if axis.images]
    assert drawn == [*range(18), *(6 * row + column for row in (3, 4, 5) for column in (0, 1))]
    for i, item in enumerate(items):
        place = 18 * (i // 6) + i % 6
        shown = axes[place].images[0].get_array()
        assert np.allclose(shown, item["image"].permute(1, 2, 0))
        assert axes[place].get_title() == f"class {item['label']}"
        expected = overlay(item["image"], explained[0][2].maps[i])
        assert np.array_equal(axes[place + 6].images[0].get_array(), np.asarray(expected))
    assert not any(axis.axison for axis in axes)
    plt.close(figure)
