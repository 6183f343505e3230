"""Tables and figures: what they show is what was measured."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from ttame_core import figures, tables
from ttame_core.statistics import averages, bootstrap_interval, means_table
from ttame_core.study_figures import convergence_curves


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
    assert table["images"].to_dict() == {"t-tame": 12, "grad-cam": 2, "all-ones": 12}
    assert "images" not in tables.wide_table(means_table(scores()))


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


def test_outcomes_count_the_better_side_of_each_measure():
    columns = ["backbone", "measure", "v", "rival", "n", "difference", "low", "high", "p"]
    found = tables.outcome_counts(
        pd.DataFrame(
            [
                ("a", "ad", 15, "rise", 9, -5.0, -6, -4, 0.01),  # less is better
                ("a", "ad", 15, "iia", 9, 5.0, 4, 6, 0.01),
                ("a", "ad", 15, "score-cam", 9, 5.0, -1, 6, 0.5),
                ("a", "ad", 15, "random", 9, -50.0, -51, -49, 0.0),  # a control
                ("a", "ic", 15, "rise", 9, 5.0, 4, 6, 0.01),  # more is better
            ],
            columns=columns,
        )
    )
    assert found.loc["a", "AD(15) ↓"].to_dict() == {"better": 1, "neither": 1, "worse": 1}
    assert found.loc["a", "IC(15) ↑"].to_dict() == {"better": 1, "neither": 0, "worse": 0}
