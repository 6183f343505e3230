"""Tables and figures: what they show is what was measured."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.colors import to_rgba

import ttame_core as tt
from ttame_book.report import charts, maps, tables
from ttame_book.report.intervals import averages, bootstrap_interval, means_table
from ttame_core.images.explanation import colours_of, overlay
from ttame_core.recipes import CONTROLS, METHODS, TRAINED


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


def lines_of(axis, methods):
    """A panel's curves by the method whose colour they have."""
    palette = charts.method_styles(methods)["palette"]
    names = {palette[name]: name for name in methods}
    lines = [line for line in axis.get_lines() if len(line.get_xdata())]
    found = {names[line.get_color()]: line for line in lines}
    assert len(found) == len(lines)
    return found


def bars_of(axis):
    """A panel's bars and the ends of their intervals, by the place of their row."""
    bars = {round(bar.get_y() + bar.get_height() / 2): bar for bar in axis.patches}
    return bars, {round(line.get_ydata()[0]): line.get_xdata() for line in axis.get_lines()}


def test_bars_are_the_means_of_the_scores_with_their_intervals():
    own = scores()[scores()["backbone"] == "a"]
    own["value"] += 12.0 * (own["image_id"] == "i11")  # so that mean and median differ
    told = [own, own.assign(measure="ic", value=own["value"] + 1)]
    aside = [own.assign(measure=measure) for measure in ("invalid", "confidence")]
    figure = charts.measure_bars(pd.concat([*told, *aside]))
    assert [axis.get_title() for axis in figure.axes] == ["AD(15) ↓", "IC(15) ↑"]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["t-tame", "grad-cam", "all-ones"]
    figure.canvas.draw()
    assert not any(tick.label1.get_visible() for tick in figure.axes[1].yaxis.get_major_ticks())
    palette = charts.method_styles()["palette"]
    for axis, more in zip(figure.axes, (0, 1), strict=True):
        bars, ends = bars_of(axis)
        for row, lowest in enumerate((10, 20, 0)):
            assert bars[row].get_width() == pytest.approx(lowest + 2.5 + more)
            assert bars[row].get_facecolor() == to_rgba(palette[names[row]])
            values = own["value"][own["method"] == names[row]].to_numpy() + more
            assert ends[row] == pytest.approx(bootstrap_interval(values), abs=0.3)
    plt.close(figure)


def test_bars_bear_with_missing_values_and_single_images():
    few = scores()[scores()["backbone"] == "a"]
    few = few[(few["method"] != "t-tame") | (few["image_id"] == "i01")]
    few.loc[few["method"] == "grad-cam", "value"] = np.nan
    figure = charts.measure_bars(few)
    bars, ends = bars_of(figure.axes[0])
    widths = {row: bar.get_width() for row, bar in bars.items() if bar.get_width()}
    assert widths == {0: 11, 2: pytest.approx(1.5)}
    assert not np.isfinite(ends.get(0, [np.nan])).any() and np.isfinite(ends[2]).all()
    plt.close(figure)


def test_similarities_have_a_row_a_part():
    own = scores()[scores()["backbone"] == "a"].assign(v=0)
    parts = own.assign(method=own["method"].map({"t-tame": "head", "grad-cam": "all"})).dropna()
    similar = [
        parts.assign(measure="rank correlation", value=parts["value"] / 30 - 0.5),
        parts.assign(measure="ssim", value=parts["value"] / 30),
    ]
    figure = charts.similarity_bars(pd.concat(similar))
    assert [axis.get_title() for axis in figure.axes] == ["rank correlation", "SSIM"]
    for axis, less in zip(figure.axes, (0.5, 0), strict=True):
        bars, ends = bars_of(axis)
        for row, mean in enumerate((11.5 / 30 - less, 21.5 / 30 - less)):
            assert bars[row].get_width() == pytest.approx(mean)
            assert ends[row][0] < mean < ends[row][1]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["head", "all"]
    plt.close(figure)


def test_a_perturbation_has_a_panel_a_measure_and_a_curve_a_method():
    own = scores()[scores()["backbone"] == "a"]
    parts = [
        own.assign(measure=measure, v=v, value=own["value"] + v / 10)
        for measure in ("lerf", "morf", "invalid")
        for v in (90, 10, 50)
    ]
    missing = (own["method"] == "grad-cam").to_numpy()
    parts = [*parts[:3], *(part[~missing] for part in parts[3:])]
    figure = charts.perturbation_curves(pd.concat(parts), ["morf", "lerf"])
    titles = ["ROAD, most relevant first ↓", "ROAD, least relevant first ↑"]
    assert [axis.get_title() for axis in figure.axes] == titles
    assert [axis.get_xlabel() for axis in figure.axes] == ["pixels imputed (%)"] * 2
    names = ["t-tame", "grad-cam", "all-ones"]
    for axis, drawn in zip(figure.axes, (["t-tame", "all-ones"], names), strict=True):
        found = lines_of(axis, names)
        assert list(found) == drawn
        for name, lowest in zip(names, (10, 20, 0), strict=True):
            if name in found:
                assert found[name].get_xdata().tolist() == [10, 50, 90]
                means = [lowest + 1.5 + v / 10 for v in (10, 50, 90)]
                assert found[name].get_ydata().tolist() == pytest.approx(means)
        lowest = found["all-ones"].get_ydata()
        band = axis.collections[-1].get_paths()[0].vertices
        for v, mean in zip((10, 50, 90), lowest, strict=True):
            low, high = band[band[:, 0] == v, 1].min(), band[band[:, 0] == v, 1].max()
            interval = bootstrap_interval(mean + np.arange(12) % 4 - 1.5)
            assert (low, high) == pytest.approx(interval, abs=0.15)
        first = found.pop("t-tame")
        assert all(line.get_linewidth() < first.get_linewidth() for line in found.values())
        assert all(line.get_zorder() < first.get_zorder() for line in found.values())
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    figure.canvas.draw()
    assert legend.get_window_extent().x0 > figure.axes[-1].get_window_extent().x1
    plt.close(figure)


def test_every_method_has_its_own_line_and_controls_are_grey():
    styles = charts.method_styles(["new"])
    lines = list(zip(styles["palette"].values(), styles["dashes"].values(), strict=True))
    assert len(set(lines)) == len(lines) == len({*TRAINED, *METHODS, "new"})
    assert [name for name, colour in styles["palette"].items() if colour == "0.5"] == [*CONTROLS]
    trained = [styles["palette"][name] for name in TRAINED]
    others = [colour for name, colour in styles["palette"].items() if name not in TRAINED]
    assert not {*trained} & {*others} and len({*trained}) == len(trained)
    known = charts.method_styles()
    assert all(known[kind].items() <= styles[kind].items() for kind in known)


def test_convergence_has_a_row_a_backbone_and_a_line_a_method():
    parts = [
        scores().assign(steps=steps, method=start, value=scores()["value"] / (1 + steps))
        for steps in (0, 10, 100)
        for start in ("random start", "warm start")
    ]
    table = pd.concat(parts)
    figure = charts.convergence_curves(pd.concat([table, table.assign(measure="coverage")]))
    assert [axis.get_ylabel() for axis in figure.axes] == ["a", "b"]
    assert [axis.get_title() for axis in figure.axes] == ["AD(15) ↓"] * 2
    for axis in figure.axes:
        found = lines_of(axis, ["random start", "warm start"])
        assert list(found) == ["random start", "warm start"]
        for line in found.values():
            assert line.get_xdata().tolist() == [0, 10, 100]
            means = [11.5, 11.5 / 11, 11.5 / 101]
            assert line.get_ydata().tolist() == pytest.approx(means)
    plt.close(figure)


def test_convergence_has_one_legend_and_one_colour_a_method():
    table = pd.concat([scores().assign(steps=steps) for steps in (0, 10)])
    figure = charts.convergence_curves(
        table[(table["backbone"] == "b") | (table["method"] != "t-tame")]
    )
    (legend,) = figure.legends
    named = {text.get_text() for text in legend.get_texts()}
    assert named == {"t-tame", "grad-cam", "all-ones"}
    first, second = [lines_of(axis, named) for axis in figure.axes]
    assert set(first) == {"grad-cam", "all-ones"} and set(second) == named
    plt.close(figure)


def test_the_best_of_the_grid_is_framed():
    rows = [
        (measure, 15, rate, steps, value + rate * steps)
        for measure, value in (("ad", 80), ("ic", 5))
        for rate in (1, 2)
        for steps in (1, 3)
    ]
    means = pd.DataFrame(rows, columns=["measure", "v", "max_lr", "steps", "mean"])
    figure = charts.landscape(means)
    assert [axis.get_title() for axis in figure.axes] == ["AD(15) ↓", "IC(15) ↑"]
    assert [patch.get_xy() for axis in figure.axes for patch in axis.patches] == [(0, 0), (1, 1)]
    plt.close(figure)


def test_a_training_is_drawn_as_its_moving_average():
    steps = np.arange(50)
    names = ["total", "ce", "area", "variation", "truth_mean", "truth_spread", "others_mean"]
    columns = {name: (i + 1) * (steps + 1) / 500 for i, name in enumerate(names)}
    figure = charts.training_curves(pd.DataFrame({"step": steps, **columns}))
    drawn = [[n for n in a.get_lines() if len(n.get_xdata())] for a in figure.axes]
    assert [len(lines) for lines in drawn] == [4, 3]
    for i, line in enumerate([*drawn[0], *drawn[1]]):
        assert line.get_xdata().tolist() == steps.tolist()
        assert line.get_ydata()[1:].tolist() == pytest.approx((i + 1) * (steps[1:] + 0.5) / 500)
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


def points_of(axis):
    """Each method's points: place across, place down, whether it is filled."""
    drawn = [c for c in axis.collections if isinstance(c, PathCollection)]
    return [
        [
            (x, y, tuple(colour) != to_rgba("white"))
            for (x, y), colour in zip(c.get_offsets().tolist(), c.get_facecolors(), strict=True)
        ]
        for c in drawn
    ]


def test_differences_have_a_panel_a_backbone_and_are_filled_where_significant():
    figure = charts.differences_plot(COMPARED[COMPARED["measure"] == "ad"], "ad", 15)
    (axis,) = figure.axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == ["t-tame-warm", "score-cam", "rise", "iia", "random"]  # the control last
    own, warm = points_of(axis)
    assert {(x, y) for x, y, filled in own if not filled} == {(5, 1 - 0.175)}  # p is 0.05
    assert len(own) == 5
    assert warm == [(5, pytest.approx(2 + 0.175), True), (5, pytest.approx(4.175), False)]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["t-tame", "t-tame-warm"]
    plt.close(figure)


def test_a_method_that_cannot_serve_a_backbone_is_missing_in_its_panel_alone():
    compared = pd.concat([COMPARED, COMPARED[COMPARED["method"] == "t-tame"].assign(backbone="b")])
    figure = charts.differences_plot(compared[compared["measure"] == "ad"], "ad", 15)
    drawn = [points_of(axis) for axis in figure.axes]
    assert [[len(points) for points in panel] for panel in drawn] == [[5, 2], [5, 0]]
    filled = [[sum(clear for *_, clear in points) for points in panel] for panel in drawn]
    assert filled == [[4, 1], [4, 0]]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["t-tame", "t-tame-warm"]
    plt.close(figure)
