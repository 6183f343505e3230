"""Tables and figures: what they show is what was measured."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection

import ttame_core as tt
from ttame_core import figures, tables
from ttame_core.statistics import averages, bootstrap_interval, means_table
from ttame_core.study_figures import convergence_curves, differences_plot


def scores():
    rows = [
        (backbone, method, "ad", 15, f"i{i:02}", value + i % 4)
        for backbone in ("a", "b")
        for method, value in (("t-tame", 10.0), ("grad-cam", 20.0), ("all-ones", 0.0))
        for i in range(12)
    ]
    return pd.DataFrame(rows, columns=["backbone", "method", "measure", "v", "image_id", "value"])


def test_means_and_their_intervals():
    means = means_table(scores(), by=["backbone", "method"])
    row = means[(means["backbone"] == "a") & (means["method"] == "grad-cam")].iloc[0]
    assert (row["n"], row["mean"]) == (12, 21.5)
    assert 20 <= row["low"] < 21.5 < row["high"] <= 23
    assert bootstrap_interval(np.full(5, 3.0)) == (3, 3)


def test_the_interval_covers_a_known_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.exponential(1.0, 100))
        covered += low <= 1.0 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_a_table_reads_mean_and_interval():
    means = means_table(scores())
    assert list(means.columns) == ["method", "measure", "v", "n", "mean", "low", "high"]
    table = tables.wide_table(means)
    half = (means["high"][0] - means["low"][0]) / 2
    assert table.loc["t-tame", "AD(15) ↓"] == f"11.5 ±{half:.1f}"


def test_rows_of_a_table_keep_their_order_within_each_backbone():
    grid = pd.concat(scores().assign(backbone=b, rate=r) for b, r in RATES)
    table = tables.wide_table(means_table(grid, by=["backbone", "rate"]), ["backbone", "rate"])
    assert list(table.index) == RATES


RATES = [("a", 0.01), ("a", 0.03), ("b", 0.001), ("b", 0.01)]
"""Backbones by learning rates, one of which only the second has."""


def test_convergence_has_a_row_a_backbone_and_a_line_a_method():
    parts = [
        scores().assign(steps=steps, method=start, value=scores()["value"] / (1 + steps))
        for steps in (0, 10, 100)
        for start in ("random", "warm")
    ]
    means = means_table(pd.concat(parts), by=["backbone", "method", "steps"])
    figure = convergence_curves(means)
    assert [axis.get_ylabel() for axis in figure.axes] == ["a", "b"]
    for axis in figure.axes:
        lines = [line for line in axis.get_lines() if len(line.get_xdata()) == 3]
        assert [line.get_label() for line in lines] == ["random", "warm"]
        assert list(lines[0].get_xdata()) == [0, 10, 100]
        assert list(lines[0].get_ydata()) == sorted(lines[0].get_ydata(), reverse=True)
    plt.close(figure)


def test_convergence_has_one_legend_and_one_colour_a_method():
    parts = [scores().assign(steps=steps) for steps in (0, 10)]
    means = means_table(pd.concat(parts), by=["backbone", "method", "steps"])
    figure = convergence_curves(means[(means["backbone"] == "b") | (means["method"] != "t-tame")])
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert named == {"t-tame", "grad-cam", "all-ones"}
    colours = [
        {line.get_label(): line.get_color() for line in axis.get_lines()} for axis in figure.axes
    ]
    assert len(colours[0]) == 2 and colours[0].items() < colours[1].items()
    plt.close(figure)


def test_averages_over_v_are_taken_image_by_image():
    rows = [("t-tame", "morf", v, image, v + n) for v in (10, 30) for n, image in enumerate("ab")]
    table = averages(pd.DataFrame(rows, columns=["method", "measure", "v", "image_id", "value"]))
    assert table["measure"].tolist() == ["mean morf"] * 2
    assert table["value"].tolist() == [20, 21]


def test_the_best_method_is_bold_and_controls_do_not_compete():
    means = means_table(scores(), by=["backbone", "method"])
    assert marked(means) == {
        ("a", "t-tame"): "bold",
        ("b", "t-tame"): "bold",
        ("a", "grad-cam"): "italic",
        ("b", "grad-cam"): "italic",
    }


def marked(means):
    html = tables.best_marked(means)
    html._compute()
    return {html.index[row]: style[0][1] for (row, _), style in html.ctx.items() if style}


def test_marks_are_there_in_markdown_too():
    means = means_table(scores(), by=["backbone", "method"])
    rows = tables.markdown(tables.best_marked(means)).splitlines()[2:]
    cells = {tuple(r.split("|")[i].strip() for i in (1, 2)): r.split("|")[-2].strip() for r in rows}
    assert cells["a", "t-tame"].startswith("**11.5 ±") and cells["a", "t-tame"].endswith("**")
    assert cells["b", "grad-cam"].startswith("*21.5 ±")
    assert cells["a", "all-ones"].startswith("1.5 ±")  # a control


def test_ties_are_marked_alike_and_the_next_value_is_second():
    tied = scores()
    tied.loc[tied["method"] == "grad-cam", "value"] -= 10  # as t-tame's
    third = tied[tied["method"] == "t-tame"].assign(method="rise")
    third["value"] += 5
    found = marked(means_table(pd.concat([tied, third]), by=["backbone", "method"]))
    for backbone in ("a", "b"):
        assert found[backbone, "t-tame"] == found[backbone, "grad-cam"] == "bold"
        assert found[backbone, "rise"] == "italic"


def test_where_more_is_better_the_highest_is_best():
    means = means_table(scores().assign(measure="ic"), by=["backbone", "method"])
    assert marked(means)["a", "grad-cam"] == "bold"


def test_a_handful_of_images_has_no_best():
    few = scores()
    few = few[few["image_id"] < "i09"]
    assert marked(means_table(few, by=["backbone", "method"])) == {}


def test_latex_has_booktabs_and_the_marks():
    text = tables.latex(tables.best_marked(means_table(scores(), by=["backbone", "method"])))
    assert "nowrap" not in text and "\\begin{tabular}{ll" in text
    assert "\\toprule" in text and "\\bottomrule" in text
    assert "\\bfseries 11.5 $\\pm$" in text and "\\itshape 21.5" in text
    assert "AD(15) $\\downarrow$" in text


def test_the_number_of_images_is_told_where_it_differs():
    few = scores()
    few = few[(few["method"] != "grad-cam") | few["image_id"].isin(["i00", "i01"])]
    table = tables.wide_table(means_table(few[few["backbone"] == "a"]))
    assert table["images"].to_dict() == {"t-tame": "12", "grad-cam": "2", "all-ones": "12"}
    assert "images" not in tables.wide_table(means_table(scores()))
    always = tables.wide_table(means_table(scores()), images=True)
    assert always.columns[0] == "images" and set(always["images"]) == {"24"}
    means = means_table(scores(), by=["backbone", "method"])
    assert set(tables.best_marked(means).data["images"]) == {"12"}
    both = pd.concat([scores(), few.assign(measure="morf")])
    assert tables.wide_table(means_table(both))["images"]["grad-cam"] == "24, 4"


def test_what_rounds_to_zero_has_no_sign():
    means = pd.DataFrame({"method": ["a"], "measure": "ssim", "v": 0, "n": 9, "mean": -0.004})
    table = tables.wide_table(means.assign(low=-0.054, high=0.046), digits=2)
    assert table["SSIM"].tolist() == ["0.00 ±0.05"]


def test_the_spread_of_seeds_is_that_of_their_means():
    rows = [
        (backbone, f"seed {seed}", measure, v, f"i{i}", mean + i - 1)
        for backbone, means in (("b", (10, 13, 16)), ("a", (5,)))
        for seed, mean in enumerate(means)
        for measure, v in (("ad", 50), ("ic", 15), ("coverage", 100))
        for i in range(3)
    ]
    columns = ["backbone", "method", "measure", "v", "image_id", "value"]
    found = tables.seed_spread(pd.DataFrame(rows, columns=columns))
    assert list(found.index) == ["b", "a"]
    assert list(found.columns) == ["seeds", "images", "AD(50) ↓", "IC(15) ↑"]
    assert found.loc["b"].tolist() == [3, 3, "10.0 to 16.0 (3.0)", "10.0 to 16.0 (3.0)"]
    assert found.loc["a"].tolist() == [1, 3, "5.0", "5.0"]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_gallery_is_the_same_file_each_time(tmp_path, suffix):
    figures.theme()
    images = torch.rand(3, 3, 16, 16)
    for name in ("a", "b"):
        figure = figures.gallery(images, {"one": torch.rand(3, 4, 4).mul(0), "two": images[:, 0]})
        assert len(figure.axes) == 9 + 1  # three rows of three, one colour bar
        figure.savefig(
            tmp_path / f"{name}.{suffix}", metadata={"Date": None} if suffix == "svg" else None
        )
        plt.close(figure)
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_many_images_of_several_backbones_go_below_each_other(tiny, noise):
    items = [{**noise[i], "label": i % 3} for i in range(8)]
    explainer = tt.TTAME(tiny).eval()
    explained = [(explainer, items, explainer(noise.images[:8]))] * 2
    figure = figures.backbones_gallery(explained)
    *axes, _ = figure.axes
    assert len(axes) == 2 * 3 * 6  # blocks, rows, images
    drawn = [i for i, axis in enumerate(axes) if axis.images]
    assert drawn == [*range(18), *(6 * row + column for row in (3, 4, 5) for column in (0, 1))]
    for i, item in enumerate(items):
        place = 18 * (i // 6) + i % 6
        shown = axes[place].images[0].get_array()
        assert np.allclose(shown, item["image"].permute(1, 2, 0))
        assert axes[place].get_title() == f"class {item['label']}"
        expected = figures.overlay(item["image"], explained[0][2].maps[i])
        assert np.array_equal(axes[place + 6].images[0].get_array(), np.asarray(expected))
    assert not any(axis.axison for axis in axes)
    plt.close(figure)


COMPARED = pd.DataFrame(
    [
        ("a", "ad", 15, "t-tame", "t-tame-warm", 500, -9.0, -10, -8, 0.01),
        ("a", "ad", 15, "t-tame", "rise", 100, -5.0, -6, -4, 0.01),  # less is better
        ("a", "ad", 15, "t-tame", "iia", 500, 5.0, 4, 6, 0.01),
        ("a", "ad", 15, "t-tame", "score-cam", 500, 5.0, -1, 6, 0.05),
        ("a", "ad", 15, "t-tame", "random", 500, -50.0, -51, -49, 0.0),  # a control
        ("a", "ad", 15, "t-tame-warm", "rise", 100, 5.0, 4, 6, 0.01),
        ("a", "ad", 15, "t-tame-warm", "random", 500, 5.0, 4, 6, 0.5),
        ("a", "ic", 15, "t-tame", "rise", 100, 5.0, 4, 6, 0.01),  # more is better
        ("b", "mean morf", 0, "t-tame", "attention-rollout", 200, 1.0, 0, 2, 0.5),
        ("b", "mean morf", 0, "t-tame", "iia", 200, -5.0, -6, -4, 0.01),
        ("b", "mean lerf", 0, "t-tame", "iia", 150, -5.0, -6, -4, 0.01),
    ],
    columns=["backbone", "measure", "v", "method", "rival", "n", "difference", "low", "high", "p"],
)


def test_outcomes_count_the_better_side_of_each_measure():
    found = tables.outcome_counts(COMPARED)
    assert list(found.columns) == ["t-tame", "t-tame-warm"]
    assert found.loc["a", "AD(15) ↓"].tolist() == ["1 / 1 / 1", "0 / 0 / 1"]
    assert found.loc["a", "IC(15) ↑"].tolist() == ["1 / 0 / 0", ""]
    assert found["t-tame"].loc["b"].to_dict() == {
        "ROAD, MoRF ↓": "1 / 1 / 0",
        "ROAD, LeRF ↑": "0 / 0 / 1",
    }


def test_signs_say_which_method_is_better_than_which_rival():
    found = tables.outcome_signs(COMPARED)
    assert list(found.loc["a"].index) == ["t-tame-warm", "rise", "iia", "score-cam"]
    assert list(found.loc["b"].index) == ["attention-rollout", "iia"]  # each as they come
    assert found["AD(15) ↓"].tolist() == ["▲ ·", "▲ ▼", "▼ ·", "○ ·", "", ""]
    assert found["IC(15) ↑"].tolist() == ["", "▲ ·", "", "", "", ""]
    assert found["images"].tolist() == ["500", "100", "500", "500", "200", "200, 150"]
    controls = tables.outcome_signs(COMPARED, controls=True)
    assert controls.to_dict("index") == {("a", "random"): {"images": "500", "AD(15) ↓": "▲ ○"}}


def test_signs_are_latex_commands():
    text = tables.latex(tables.outcome_signs(COMPARED).style)
    assert "$\\bigtriangleup$ $\\bigtriangledown$" in text and "$\\circ$ $\\cdot$" in text
    assert not set(text) & set("▲○▼·")


def test_differences_have_a_panel_a_backbone_and_are_filled_where_significant():
    figure = differences_plot(COMPARED[COMPARED["measure"] == "ad"], "ad", 15)
    (axis,) = figure.axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == ["t-tame-warm", "score-cam", "rise", "iia", "random"]  # the control last
    points = [c.get_offsets() for c in axis.collections if isinstance(c, PathCollection)]
    assert [len(found) for found in points] == [5, 4, 2, 1]  # all and the significant, a method
    assert points[3].tolist() == [[5.0, pytest.approx(2 + 0.175)]]  # below t-tame's
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["t-tame", "t-tame-warm"]
    plt.close(figure)


def test_a_method_that_cannot_serve_a_backbone_is_missing_in_its_panel_alone():
    compared = pd.concat([COMPARED, COMPARED[COMPARED["method"] == "t-tame"].assign(backbone="b")])
    figure = differences_plot(compared[compared["measure"] == "ad"], "ad", 15)
    points = [
        [len(c.get_offsets()) for c in axis.collections if isinstance(c, PathCollection)]
        for axis in figure.axes
    ]
    assert points == [[5, 4, 2, 1], [5, 4, 0, 0]]
    legend = figure.axes[-1].get_legend().get_texts()
    assert [text.get_text() for text in legend] == ["t-tame", "t-tame-warm"]
    plt.close(figure)
