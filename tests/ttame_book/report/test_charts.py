"""Curves and bars: what they show is what was measured."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba

from tests.ttame_book.report.examples import scores
from ttame_book.report import charts
from ttame_book.report.intervals import bootstrap_interval
from ttame_book.report.names import GRAD_CAM, RECIPE, ROLES

RATES = [("a", 0.01), ("a", 0.03), ("b", 0.001), ("b", 0.01)]


def bars_of(axis):
    """A panel's bars and the ends of their intervals, by the place of their row."""
    bars = {round(bar.get_y() + bar.get_height() / 2): bar for bar in axis.patches}
    return bars, {round(line.get_ydata()[0]): line.get_xdata() for line in axis.get_lines()}


def test_bars_are_the_means_of_the_scores_with_their_intervals():
    own = scores()[scores()["backbone"] == "a"]
    own["value"] += 12.0 * (own["image_id"] == "i11")  # so that mean and median differ
    told = [own, own.assign(measure="ic", value=own["value"] + 1)]
    aside = [own.assign(measure=measure) for measure in ("invalid", "confidence")]
    roles = {RECIPE: "t-tame", GRAD_CAM: "grad-cam"}
    figure = charts.measure_bars(pd.concat([*told, *aside]), roles)
    assert [axis.get_title() for axis in figure.axes] == ["AD(15) ↓", "IC(15) ↑"]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["T-TAME", "Grad-CAM", "All ones (control)"]
    methods = ["t-tame", "grad-cam", "all-ones"]
    figure.canvas.draw()
    assert not any(tick.label1.get_visible() for tick in figure.axes[1].yaxis.get_major_ticks())
    colours = [*map(charts.ROLE_COLOURS.get, roles), charts.GREY]
    for axis, more in zip(figure.axes, (0, 1), strict=True):
        bars, ends = bars_of(axis)
        for row, lowest in enumerate((10, 20, 0)):
            assert bars[row].get_width() == pytest.approx(lowest + 2.5 + more)
            assert bars[row].get_facecolor() == to_rgba(colours[row])
            values = own["value"][own["method"] == methods[row]].to_numpy() + more
            assert ends[row] == pytest.approx(bootstrap_interval(values), abs=0.3)
    plt.close(figure)


def test_bars_bear_with_missing_values_and_single_images():
    few = scores()[scores()["backbone"] == "a"]
    few = few[(few["method"] != "t-tame") | (few["image_id"] == "i01")]
    few.loc[few["method"] == "grad-cam", "value"] = np.nan
    figure = charts.measure_bars(few, {})
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


def test_a_perturbation_has_a_panel_a_measure_and_colours_for_roles_alone():
    names = ["t-tame", "t-tame-top", "rise", "grad-cam", "iia", "score-cam", "all-ones"]
    rows = [
        (method, measure, v, 10 * i + v, 10 * i + v - 2, 10 * i + v + 3)
        for i, method in enumerate((*names, "t-tame-rise"))
        for measure in ("lerf", "morf", "invalid")
        for v in (90, 10, 50)
        if (method, measure) != ("grad-cam", "morf")
    ]
    means = pd.DataFrame(rows, columns=["method", "measure", "v", "mean", "low", "high"])
    roles = dict(zip(ROLES, names, strict=False))
    figure = charts.perturbation_curves(means, ["morf", "lerf"], roles)
    titles = [
        "ROAD, most relevant first\nlower is better",
        "ROAD, least relevant first\nhigher is better",
    ]
    assert [axis.get_title() for axis in figure.axes] == titles
    assert [axis.get_xlabel() for axis in figure.axes] == ["pixels imputed (%)"] * 2
    colours = dict(zip(names, charts.ROLE_COLOURS.values(), strict=False))
    for axis, missing in zip(figure.axes, ("grad-cam", ""), strict=True):
        lines = {line.get_ydata()[0] // 10 - 1: line for line in axis.get_lines()}
        drawn = [i for i, name in enumerate(names) if name != missing]
        assert sorted(lines) == drawn  # and no variant of T-TAME that has no role
        for i in drawn:
            assert lines[i].get_xdata().tolist() == [10, 50, 90]
            assert lines[i].get_ydata().tolist() == [10 * i + v for v in (10, 50, 90)]
            assert lines[i].get_color() == colours.get(names[i], charts.GREY)
        coloured = [line for line in axis.get_lines() if line.get_color() != charts.GREY]
        assert len(coloured) == 5 - bool(missing) == len(axis.collections)
        first, last = (axis.collections[i].get_paths()[0].vertices for i in (0, -1))
        assert first[first[:, 0] == 50, 1].min() == 48 and first[first[:, 0] == 50, 1].max() == 53
        assert last[last[:, 0] == 50, 1].max() == 10 * names.index("iia") + 53
        own, rest = coloured[:2], [line for line in axis.get_lines() if line not in coloured[:2]]
        assert min(x.get_linewidth() for x in own) > max(x.get_linewidth() for x in rest)
        assert min(x.get_zorder() for x in own) > max(x.get_zorder() for x in rest)
    (legend,) = figure.legends
    told = [text.get_text() for text in legend.get_texts()]
    shown = ["T-TAME", "T-TAME, top masks", "RISE", "Grad-CAM", "IIA"]
    assert told == [*shown, "other methods and controls"]
    plt.close(figure)


def a_convergence(*methods):
    """Scores of two backbones after several numbers of steps."""
    parts = [
        scores().assign(steps=steps, method=method, value=(i + scores()["value"]) / (1 + steps))
        for steps in (0, 10, 100)
        for i, method in enumerate(methods)
    ]
    return pd.concat(parts)


def test_convergence_has_a_row_a_backbone_and_a_line_a_method():
    table = a_convergence("random start", "warm start")
    figure = charts.convergence_curves(pd.concat([table, table.assign(measure="coverage")]))
    assert [row.get_suptitle() for row in figure.subfigs] == ["a", "b"]
    assert [axis.get_title() for axis in figure.axes] == ["AD(15) ↓"] * 2
    assert "logarithmic" in figure.get_supxlabel() and figure.get_supylabel() == "per cent"
    for axis in figure.axes:
        lines = axis.get_lines()
        assert len(lines) == len(axis.collections) == 2
        for i, line in enumerate(lines):
            assert line.get_xdata().tolist() == axis.get_xticks().tolist() == [0, 10, 100]
            means = [(i + 11.5) / (1 + steps) for steps in (0, 10, 100)]
            assert line.get_ydata().tolist() == pytest.approx(means)
    plt.close(figure)


def test_a_recipe_has_the_same_line_in_each_panel_and_no_other_roles_colour():
    methods = ["t-tame", *(f"recipe {i}" for i in range(6))]
    table = a_convergence(*methods)
    figure = charts.convergence_curves(
        table[(table["backbone"] == "b") | (table["method"] != "recipe 1")]
    )
    (legend,) = figure.legends
    told = [text.get_text() for text in legend.get_texts()]
    looks = [(line.get_color(), line.get_marker()) for line in legend.get_lines()]
    assert sorted(told) == sorted(["T-TAME", *methods[1:]]) and len(set(looks)) == len(looks)
    of = dict(zip(told, looks, strict=True))
    assert of.pop("T-TAME") == (charts.ROLE_COLOURS[RECIPE], charts.ROLE_MARKERS[RECIPE])
    assert not {colour for colour, _ in of.values()} & set(charts.ROLE_COLOURS.values())
    first, second = [
        [(line.get_color(), line.get_marker()) for line in axis.get_lines()] for axis in figure.axes
    ]
    assert set(second) == set(looks) and set(first) == set(looks) - {of["recipe 1"]}
    plt.close(figure)


def test_on_a_small_screen_curves_are_below_each_other():
    table = a_convergence("t-tame", "warm start")
    tall = charts.convergence_curves(
        pd.concat([table.assign(v=v) for v in (100, 50, 15)]), narrow=True
    )
    means = pd.DataFrame({"method": "t-tame", "measure": ["morf", "lerf"], "v": 10, "mean": 1.0})
    road = charts.perturbation_curves(
        means.assign(low=0, high=2), ["morf", "lerf"], {RECIPE: "t-tame"}, narrow=True
    )
    for figure, columns in ((tall, 2), (road, 1)):
        figure.canvas.draw()
        assert figure.get_size_inches()[0] == 3.5
        lefts = {round(axis.get_window_extent().x0, -1) for axis in figure.axes}
        assert len(lefts) == columns
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
