"""Forest plots, quality for cost and verdicts: marks stand at the numbers, sides are named right."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.text import Annotation

from tests.ttame_book.report.examples import COMPARED
from ttame_book.report import figures
from ttame_book.report.charts import GREY, ROLE_COLOURS
from ttame_book.report.names import GRAD_CAM, RECIPE, RISE, VARIANT
from ttame_core.methods.registry import METHODS
from ttame_core.recipes import TRAINED

ROLES = {"a": {RECIPE: "t-tame", VARIANT: "t-tame-top"}}


def rows_of(axis):
    """Names of a panel's rows."""
    return [label.get_text() for label in axis.get_yticklabels()]


def marks_of(axis, names):
    """A panel's marks by colour and row: place across, ends of the interval, whether filled."""
    points = [c for c in axis.collections if isinstance(c, PathCollection)]
    lines = [c for c in axis.collections if isinstance(c, LineCollection)]
    found = {}
    for dots, intervals in zip(points, lines, strict=True):
        edges = np.broadcast_to(dots.get_edgecolors(), (len(dots.get_offsets()), 4))
        for (x, y), face, edge, ends in zip(
            dots.get_offsets(),
            dots.get_facecolors(),
            edges,
            intervals.get_segments(),
            strict=True,
        ):
            assert (ends[:, 1] == y).all()
            filled = to_hex(face) == to_hex(edge)
            assert filled or to_hex(face) == "#ffffff"
            found[to_hex(edge), names[round(y)]] = (x, *ends[:, 0], filled)
    return found


def sides_of(axis):
    """What is below a panel, and at which end of it."""
    notes = [text for text in axis.texts if isinstance(text, Annotation)]
    return {text.get_text().replace("\n", " "): text.xy[0] for text in notes}


def test_a_forest_plot_has_its_marks_at_the_differences_and_intervals():
    compared = COMPARED[COMPARED["measure"] == "ad"]
    figure = figures.forest_plot(compared, "ad", 15, ROLES)
    (axis,) = figure.axes
    names = rows_of(axis)
    assert names == ["Score-CAM", "RISE", "IIA", "Random map (control)"]  # no variant is a rival
    recipe, variant = (ROLE_COLOURS[role] for role in (RECIPE, VARIANT))
    assert marks_of(axis, names) == {
        (recipe, "Score-CAM"): (5, -1, 6, False),  # p is 0.05
        (recipe, "RISE"): (-5, -6, -4, True),
        (recipe, "IIA"): (5, 4, 6, True),
        (recipe, "Random map (control)"): (-50, -51, -49, True),
        (variant, "RISE"): (5, 4, 6, True),
        (variant, "Random map (control)"): (5, 4, 6, False),
    }
    assert [line.get_xdata()[0] for line in axis.lines] == [0]  # zero
    assert axis.get_title() == "a, n = 500\nvariant: top masks"
    beside = [text for text in axis.texts if text.get_text() == "n = 100"]
    # at the left end, where the marks leave more room: they reach from -6 to 6, the axis to -51
    assert [text.get_position() for text in beside] == [(0.01, names.index("RISE"))]
    (legend,) = figure.legends
    told = [text.get_text() for text in legend.get_texts()]
    assert told == ["T-TAME, the paper's recipe", "T-TAME, best variant", "not significant"]
    assert "AD(15): T-TAME minus rival" in figure.get_supxlabel()
    plt.close(figure)


@pytest.mark.parametrize(
    ("measure", "v", "backbone", "left"),
    [("ad", 15, "a", True), ("ic", 15, "a", False), ("mean lerf", 0, "b", False)],
)
def test_the_side_on_which_t_tame_is_better_is_the_measures(measure, v, backbone, left):
    figure = figures.forest_plot(COMPARED, measure, v, {backbone: {RECIPE: "t-tame"}})
    expected = {"← T-TAME better": 0, "rival → better": 1}
    if not left:
        expected = {"← rival better": 0, "T-TAME → better": 1}
    assert sides_of(figure.axes[0]) == expected
    plt.close(figure)


def test_classifiers_share_the_rivals_and_a_method_that_serves_one_alone_is_missing_in_the_other():
    own = COMPARED[COMPARED["measure"] == "ad"]
    mine = own.iloc[[3]].assign(rival="mine")
    rollout = own.iloc[[1]].assign(backbone="b", rival="attention-rollout")
    roles = {**ROLES, "b": {RECIPE: "t-tame"}}
    figure = figures.forest_plot(pd.concat([mine, own, rollout]), "ad", 15, roles)
    first, second = figure.axes
    names = rows_of(first)
    assert names[-3:] == ["Attention rollout", "mine", "Random map (control)"]  # controls last
    assert first.get_ylim() == second.get_ylim() and first.get_xlim() == second.get_xlim()
    assert len(marks_of(first, names)) == 7
    recipe = ROLE_COLOURS[RECIPE]
    assert marks_of(second, names) == {(recipe, "Attention rollout"): (-5, -6, -4, True)}
    assert second.get_title() == "b, n = 100"
    plt.close(figure)


def test_all_methods_of_the_registry_fit_and_no_text_is_below_nine_points_or_over_another():
    methods = [name for name in (*TRAINED, *METHODS) if name != "t-tame"]
    row = COMPARED.iloc[1]
    table = pd.DataFrame(
        [{**row, "backbone": b, "rival": name} for b in "abcd" for name in methods]
    )
    roles = {b: {RECIPE: "t-tame", VARIANT: "t-tame-warm-matched"} for b in "abcd"}
    figure = figures.forest_plot(table, "ad", 15, roles)
    figure.canvas.draw()
    shown = [a for a in figure.axes if a.get_visible()]
    assert len(shown) == 4 and figure.get_size_inches()[0] == pytest.approx(7.3)  # 700 px
    titles = [a.title.get_window_extent() for a in shown]
    sides = [text.get_window_extent() for a in shown for text in a.texts]
    for boxes in (titles, sides):
        assert not [
            (i, j) for i in range(len(boxes)) for j in range(i) if boxes[i].overlaps(boxes[j])
        ]
    for text in figure.findobj(plt.Text):
        assert not text.get_text() or text.get_fontsize() >= 9, text
    plt.close(figure)


def test_a_method_with_a_setting_of_its_own_is_behind_the_method():
    rows = COMPARED[COMPARED["measure"] == "ad"]
    more = rows[rows["rival"] == "rise"].assign(rival="rise, 500 masks")
    figure = figures.forest_plot(pd.concat([more, rows]), "ad", 15, ROLES)
    names = rows_of(figure.axes[0])
    assert names == ["Score-CAM", "RISE", "RISE, 500 masks", "IIA", "Random map (control)"]
    plt.close(figure)


def test_on_a_small_screen_panels_are_below_each_other_and_no_word_is_beyond_it():
    roles = {"a": ROLES["a"], "b": ROLES["a"]}
    both = pd.concat([COMPARED, COMPARED.assign(backbone="b")])
    means, costs = a_cost()
    drawn = [
        figures.forest_plot(both, "ad", 15, roles, narrow=True),
        figures.quality_cost(means, costs, roles, narrow=True),
        figures.verdict_strip(pd.DataFrame([deciding(), deciding(number=12)]), narrow=True),
    ]
    for figure in drawn:
        figure.canvas.draw()
        places = [axis.get_position() for axis in figure.axes]
        assert all(above.y0 > below.y1 for above, below in itertools.pairwise(places))
        assert len({round(place.x0, 3) for place in places}) == 1
        box = figure.get_tightbbox()
        assert box.x0 >= -0.01 and box.x1 <= 3.51 and figure.get_size_inches()[0] == 3.5
        plt.close(figure)


def a_cost():
    """Means and costs of two classifiers."""
    rows = [
        ("a", "t-tame", 40, 1.2), ("a", "t-tame-top", 30, 1.2), ("a", "t-tame-rise", 35, 1.2),
        ("a", "rise", 20, 500), ("a", "iia", 50, 12), ("a", "random", 90, 0), ("b", "rise", 25, 400),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["backbone", "method", "mean", "equivalents"])
    means = table.assign(measure="ad", v=50, n=10, low=table["mean"] - 2, high=table["mean"] + 3)
    means = means.drop(columns="equivalents")
    return pd.concat([means, means.assign(v=15, mean=99)]), table.drop(columns="mean")


def test_quality_for_cost_has_a_point_a_method_and_colours_for_roles_alone():
    means, costs = a_cost()
    roles = {"a": {**ROLES["a"], RISE: "rise", GRAD_CAM: "grad-cam"}, "b": {RISE: "rise"}}
    figure = figures.quality_cost(means, costs, roles)
    first, second = figure.axes
    found = {}
    for container in first.containers:
        line, _, (bars,) = container
        (x,), (y,) = line.get_xdata(), line.get_ydata()
        assert bars.get_segments()[0].tolist() == [[x, y - 2], [x, y + 3]]
        found[container.get_label()] = (line.get_color(), x, y)
    assert found == {  # no control, and no variant without a role
        "t-tame": (ROLE_COLOURS[RECIPE], 1.2, 40),
        "t-tame-top": (ROLE_COLOURS[VARIANT], 1.2, 30),
        "rise": (ROLE_COLOURS[RISE], 500, 20),
        "iia": (GREY, 12, 50),
    }
    assert first.get_xscale() == "log" and figure.get_supylabel() == "AD(50), less is better"
    assert len(second.containers) == 1 and first.get_title() == "a\nvariant: top masks"
    points = figures.cost_points(means, costs)
    assert len(points) == 6 and set(points["v"]) == {50}
    plt.close(figure)


def deciding(**changes):
    """One claim's deciding comparison, as `verdicts.deciding_comparisons` has it."""
    row = {
        **{"number": 1, "title": "first", "verdict": "not confirmed", "backbone": "vit_ti_16"},
        **{"measure": "ad", "v": 50.0, "left": "t-tame", "right": "rise", "difference": 10.0},
        **{"low": 8.0, "high": 14.0, "claimed": "< -5", "bound": -5, "towards": -1},
    }
    return {**row, **changes}


def test_margins_are_from_the_bound_and_positive_as_claimed():
    assert figures.margins(deciding()).tolist() == [-19, -15, -13]
    assert figures.margins(deciding(towards=1, bound=3)).tolist() == [5, 7, 11]


def test_the_strip_has_a_row_a_claim_with_its_interval_in_points_from_the_bound():
    cross = {"backbone": "vit_ti_16, vgg16", "measure": "coverage", "v": 100.0}
    rows = [
        deciding(),
        deciding(number=2, verdict="confirmed", difference=-12.0, low=-20.0, high=-8.0),
        deciding(number=3, verdict="undecided at this sample size", low=-9.0, bound=0, **cross),
        deciding(number=4, difference=0.3, low=0.2, high=0.4, bound=0.5, claimed="< 0.5",
                 measure="rank correlation"),
        deciding(number=5, verdict="not applicable here", **dict.fromkeys(
            ("backbone", "measure", "left", "right", "difference", "low", "high", "bound",
             "towards"), math.nan)),
    ]  # fmt: skip
    figure = figures.verdict_strip(pd.DataFrame(rows))
    (axis,) = figure.axes
    drawn = [line for line in axis.lines if line.get_xdata()[0] != 0 or len(line.get_xdata()) != 2]
    ends = {
        line.get_ydata()[0]: [*line.get_xdata()] for line in drawn if len(line.get_xdata()) == 2
    }
    # one scale, in points; against the claim: left of the bound; a correlation has numbers alone
    assert ends == {0: [-19, -13], 1: [3, 15], 2: [-14, 9]}
    assert axis.get_xlabel() == "points from the claim's bound"
    texts = [text.get_text() for text in axis.texts]
    words = [text for text in texts if text in figures.WORDS.values()]
    expected = ["not confirmed", "confirmed", "undecided", "not confirmed", "not applicable"]
    assert words == expected
    assert "ViT-Tiny, AD(50): T-TAME minus RISE" in texts
    assert "coverage: ViT-Tiny minus VGG-16" in texts
    assert {"  10.0 [8.0, 14.0]; claimed < −5", "  a side is missing"} < set(texts)
    assert "  0.30 [0.20, 0.40]; claimed < 0.5" in texts
    assert {"← otherwise", "as claimed →"} < set(texts)
    colours = {line.get_ydata()[0]: line.get_color() for line in drawn}
    blue, vermilion, dark, _ = figures.VERDICT_COLOURS.values()
    assert [colours[i] for i in range(3)] == [vermilion, blue, dark]
    plt.close(figure)
