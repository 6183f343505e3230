"""The drawing of the method: what it shows is what the explainer is."""

import pytest
from matplotlib import pyplot as plt

import ttame_core as tt
from ttame_book.report import drawing


def told(explainer):
    """All texts of the drawing, line ends as spaces."""
    figure = drawing.architecture(explainer)
    figure.canvas.draw()
    texts = [text.get_text().replace("\n", " ") for text in figure.axes[0].texts]
    plt.close(figure)
    return [text for text in texts if text]


def test_taps_shapes_and_sizes_are_the_backbones(tiny):
    explainer = tt.TTAME(tiny)
    parts = drawing.architecture_parts(explainer)
    assert tuple(parts["tap"]) == tiny.taps
    found = parts[["channels", "height", "width"]].itertuples(index=False)
    assert [tuple(row) for row in found] == [tuple(shape) for shape in tiny.shapes]
    sizes = [shape[1:] for shape in tiny.shapes]
    high, wide = max(sizes)
    assert set(zip(parts["map_height"], parts["map_width"], strict=True)) == {(high, wide)}
    for size, names in zip(sizes, parts["parts"], strict=True):
        upsampled = size != (high, wide)
        expected = ["1×1 conv", "batch norm", "+", "ReLU"]
        assert names.split(", ") == expected + [f"upsample {high} × {wide}"] * upsampled
    texts = told(explainer)
    for tap, (c, h, w) in zip(tiny.taps, tiny.shapes, strict=True):
        assert texts[texts.index(tap) + 1] == f"{c} × {h} × {w}"
    channels = sum(shape[0] for shape in tiny.shapes)
    assert any(f"1×1 conv {channels} → {tiny.num_classes} " in text for text in texts)
    assert {"image 3 × 16 × 16", "mask 16 × 16", f"map of y {high} × {wide}"} <= set(texts)
    assert "image, masked, then standardised" in texts
    assert texts.count("skip") == texts.count("batch norm") == len(tiny.taps)


@pytest.mark.parametrize(
    ("variant", "absent", "present"),
    [
        ("no_skip", {"skip", "+"}, {"batch norm"}),
        ("no_skip_no_batch_norm", {"skip", "batch norm"}, {"1×1 conv"}),
        ("sigmoid", {"ReLU"}, {"sigmoid"}),
        ("one_tap", {"stem", "middle"}, {"last"}),
        ("l_cam_img", {"1×1 conv", "ReLU", "skip"}, {"last"}),
        ("scaled", set(), {"÷ scale"}),
        ("squashed", {"min-max, upsample"}, {"sigmoid, min-max, upsample"}),
    ],
)
def test_a_variant_is_drawn_as_it_is(tiny, variant, absent, present):
    explainer = tt.TTAME(tiny, variant)
    texts = set(told(explainer))
    assert present <= texts and not absent & texts
    shapes = tiny.shapes[-len(explainer.attention.branches) :]
    assert {f"{c} × {h} × {w}" for c, h, w in shapes} <= texts


def test_a_transformer_is_drawn_with_its_tokens_order_and_smoothing():
    backbone = tt.load_backbone("demo_vit", None)
    texts = told(tt.TTAME(backbone, "smooth"))
    (c, h, w), *_ = backbone.shapes
    assert f"{c} × {h} × {w}, of {h * w + 1} tokens" in texts
    assert "image, standardised, then masked" in texts and f"map of y, smoothed {h} × {w}" in texts
    assert not [text for text in texts if text.startswith("upsample")]


@pytest.mark.parametrize("variant", ["proposed", "squashed"])
def test_the_drawing_is_as_wide_as_a_page_and_its_words_are_large_enough(tiny, variant):
    figure = drawing.architecture(tt.TTAME(tiny, variant))
    assert figure.get_size_inches()[0] == pytest.approx(7.3)  # 700 px
    figure.canvas.draw()
    for text in figure.axes[0].texts:
        if text.get_text():
            assert text.get_fontsize() >= 9
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, text
    plt.close(figure)
