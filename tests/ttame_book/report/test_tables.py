"""Tables to read, and the forms in which they are written."""

import re

import pandas as pd
import pytest

import ttame_book as tb
from tests.ttame_book.report import examples
from tests.ttame_book.report.examples import COMPARED
from ttame_book.report import tables
from ttame_book.report.intervals import means_table


@pytest.fixture
def run(tmp_path):
    return tb.start_run("12_compare", {"edition": "smoke", "results": str(tmp_path)})


def scores():
    """The shared scores, with a control that is behind."""
    table = examples.scores()
    table.loc[table["method"] == "all-ones", "value"] += 40
    return table


def means(*rows):
    """Means of backbone, method, measure, v, n and mean, with intervals of half a point either way."""
    columns = ["backbone", "method", "measure", "v", "n", "mean"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(low=table["mean"] - 0.5, high=table["mean"] + 0.5)


BOTH = means(
    ("a", "t-tame", "ad", 50, 20, 10.0),
    ("a", "rise", "ad", 50, 20, 30.0),
    ("a", "all-ones", "ad", 50, 20, 99.0),
    ("a", "t-tame", "ic", 50, 20, 40.0),
    ("a", "rise", "ic", 50, 20, 60.0),
    ("b_c", "rise", "ad", 50, 20, 5.0),
)


def test_a_table_is_written_as_csv_markdown_and_latex_with_its_marks(run, tmp_path):
    styled = tables.save_display(run, tables.best_marked(BOTH), "summary/masking")
    names = [f"summary/masking{suffix}" for suffix in (".csv", ".md", ".tex")]
    assert run.outputs == names
    csv, markdown, latex = ((tmp_path / "smoke" / name).read_text() for name in names)
    read = pd.read_csv(tmp_path / "smoke" / names[0], dtype=str, keep_default_na=False)
    assert read.set_index(["backbone", "method"]).loc[("a", "t-tame")].tolist() == [
        *("20", "10.0 ±0.5", "40.0 ±0.5")
    ]
    assert read.set_index(["backbone", "method"]).loc[("b_c", "rise"), "IC(50) ↑"] == ""
    assert "*" not in csv and "nan" not in csv + markdown + latex
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in markdown.splitlines()]
    assert rows[0] == ["backbone", "method", "images", "AD(50) ↓", "IC(50) ↑"]
    assert rows[2] == ["a", "T-TAME", "20", "**10.0 ±0.5**", "*40.0 ±0.5*"]
    assert rows[3] == ["a", "RISE", "20", "*30.0 ±0.5*", "**60.0 ±0.5**"]
    assert rows[4] == ["a", "All ones (control)", "20", "99.0 ±0.5", ""]
    assert (
        "& T-TAME &" in latex and "<th" in styled.to_html() and ">T-TAME</th>" in styled.to_html()
    )
    assert r"\bfseries 10.0 $\pm$0.5" in latex and r"\itshape 30.0 $\pm$0.5" in latex
    assert r"\toprule" in latex and r"b\_c" in latex and r"AD(50) $\downarrow$" in latex
    assert "±" not in latex and "↓" not in latex
    assert "font-weight: bold" in styled.to_html()


def test_a_plain_table_is_written_too(run, tmp_path):
    plain = pd.DataFrame({"minutes": ["0.1", None]}, index=pd.Index(["x", "y"], name="run"))
    styled = tables.save_display(run, plain, "runs")
    assert (tmp_path / "smoke" / "runs.csv").read_text().splitlines() == [
        "run,minutes",
        "x,0.1",
        "y,",
    ]
    assert len((tmp_path / "smoke" / "runs.md").read_text().splitlines()) == 4
    assert styled.data is plain and plain["minutes"].isna().tolist() == [False, True]


def test_a_row_says_on_how_many_images_it_rests_where_they_differ():
    fewer = means(
        ("a", "t-tame", "ad", 50, 20, 10.0),
        ("a", "rise", "ad", 50, 8, 30.0),
        ("a", "rise", "ic", 50, 7, 30.0),
    )
    table = tables.wide_table(fewer)
    assert table["images"].to_dict() == {"t-tame": "20", "rise": "8, 7"}
    assert "images" not in tables.wide_table(fewer[:1])
    assert tables.wide_table(fewer[:1], images=True)["images"].tolist() == ["20"]


def test_digits_and_means_without_an_interval():
    one = means(("a", "rise", "ssim", 0, 1, 0.12345)).assign(low=float("nan"))
    assert tables.wide_table(one, digits=2).loc["rise"].tolist() == ["0.12"]
    two = means(("a", "rise", "ssim", 0, 2, 0.12345))
    assert tables.wide_table(two, digits=2).loc["rise"].tolist() == ["0.12 ±0.50"]
    assert list(tables.wide_table(two).columns) == ["SSIM"]


def test_what_was_scored_on_far_fewer_images_is_not_marked():
    few = means(
        ("a", "t-tame", "ad", 50, 20, 10.0),
        ("a", "rise", "ad", 50, 15, 5.0),  # three quarters of the images
        ("a", "iia", "ad", 50, 17, 20.0),
        ("a", "cam", "ad", 50, 20, 30.0),
    )
    marks = tables.best_marked(few).data.attrs["marks"]
    places = {method: css for (_, method, _), css in marks.items()}
    assert places == {"t-tame": tables.MARKS[1], "iia": tables.MARKS[2]}


def differences(*rows):
    columns = ["backbone", "measure", "v", "method", "rival", "n", "difference", "p"]
    return pd.DataFrame(rows, columns=columns)


def test_outcomes_by_rival_and_measure_keep_the_order_of_methods():
    found = differences(
        ("b", "ad", 15, "t-tame", "t-tame-top", 20, -1.0, 0.001),
        ("b", "ad", 15, "t-tame", "rise", 20, 1.0, 0.001),
        ("b", "ad", 15, "t-tame-top", "rise", 20, -1.0, 0.2),
        ("b", "ic", 15, "t-tame-top", "rise", 18, 1.0, 0.01),
        ("b", "ic", 15, "t-tame-top", "random", 18, 1.0, 0.01),
        ("a", "ad", 15, "t-tame", "rise", 20, -1.0, 0.04),
    )
    counts = tables.outcome_counts(found)
    assert list(counts.columns) == ["t-tame", "t-tame-top"]
    assert counts.loc[("b", "AD(15) ↓")].tolist() == ["0 / 0 / 1", "0 / 1 / 0"]
    assert counts.loc[("b", "IC(15) ↑")].tolist() == ["", "1 / 0 / 0"]  # no control, no sibling
    assert counts.loc[("a", "AD(15) ↓")].tolist() == ["1 / 0 / 0", ""]
    signs = tables.outcome_signs(found)
    assert signs.index.tolist() == [("b", "t-tame-top"), ("b", "rise"), ("a", "rise")]
    assert signs.loc[("b", "rise")].tolist() == ["20, 18", "▼ ○", "· ▲"]
    assert signs.loc[("b", "t-tame-top")].tolist() == ["20", "▲ ·", ""]
    controls = tables.outcome_signs(found, controls=True)
    assert controls.index.tolist() == [("b", "random")]
    assert controls["IC(15) ↑"].tolist() == ["· ▲"]  # a sign for each method all the same


def test_seeds_are_told_by_their_lowest_and_highest_mean():
    rows = [
        ("a", seed, "ad", 15, image, value + image)
        for seed, value in (("seed 0", 10.0), ("seed 1", 14.0), ("seed 2", 12.0))
        for image in (0, 2)
    ]
    rows += [("b", "seed 0", "ad", 15, 0, 5.0), ("b", "seed 0", "coverage", 100, 0, 50.0)]
    columns = ["backbone", "method", "measure", "v", "image_id", "value"]
    table = tables.seed_spread(pd.DataFrame(rows, columns=columns))
    assert table.loc["a"].tolist() == [3, 2, "11.0 to 15.0 (2.0)"]
    assert table.loc["b"].tolist() == [1, 1, "5.0"]


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
    assert cells["a", "T-TAME"].startswith("**11.5 ±") and cells["a", "T-TAME"].endswith("**")
    assert cells["b", "Grad-CAM"].startswith("*21.5 ±")
    assert cells["a", "All ones (control)"].startswith("41.5 ±")  # a control


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
    more = scores().assign(measure="ic")
    means = means_table(more[more["method"] != "all-ones"], by=["backbone", "method"])
    assert marked(means)["a", "grad-cam"] == "bold"


@pytest.mark.parametrize(("control", "marks"), [(9.0, []), (11.5, []), (20.0, ["t-tame"])])
def test_what_is_no_better_than_a_control_has_no_mark(control, marks):
    table = means(
        ("a", "t-tame", "ad", 100, 20, 11.5),
        ("a", "rise", "ad", 100, 20, 21.5),
        ("a", "brightness", "ad", 100, 20, 90.0),
        ("a", "all-ones", "ad", 100, 20, control),
    )
    assert [method for _, method, _ in tables.best_marked(table).data.attrs["marks"]] == marks


def test_a_handful_of_images_has_no_best():
    few = scores()
    few = few[few["image_id"] < "i09"]
    assert marked(means_table(few, by=["backbone", "method"])) == {}


def test_labels_that_are_numbers_have_no_zeros_behind_them():
    index = pd.MultiIndex.from_tuples([(0.00003, 100), (0.03, 312)], names=["max_lr", "steps"])
    styled = tables.as_text(pd.DataFrame({"t-tame": ["a", "b"]}, index))
    shown = re.findall("<th[^>]*>([^<]*)</th>", styled.to_html())
    assert [text for text in shown if text[:1].isdigit()] == ["0.00003", "100", "0.03", "312"]
    assert "T-TAME" in shown
    lines = tables.markdown(styled).splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == ["0.00003", "0.03"]


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
    scores = pd.DataFrame(rows, columns=columns)
    scores["trained"] = scores["method"].where(scores["backbone"] == "b", "another")
    apart = tables.seed_spread(scores, ["backbone", "trained"])
    assert list(apart.index) == [("b", f"seed {n}") for n in range(3)] + [("a", "another")]
    assert apart["AD(50) ↓"].tolist() == ["10.0", "13.0", "16.0", "5.0"]


def test_outcomes_count_the_better_side_of_each_measure():
    found = tables.outcome_counts(COMPARED)
    assert list(found.columns) == ["t-tame", "t-tame-top"]
    assert found.loc["a", "AD(15) ↓"].tolist() == ["1 / 1 / 1", "0 / 0 / 1"]
    assert found.loc["a", "IC(15) ↑"].tolist() == ["1 / 0 / 0", ""]
    assert found["t-tame"].loc["b"].to_dict() == {
        "ROAD, MoRF ↓": "1 / 1 / 0",
        "ROAD, LeRF ↑": "0 / 0 / 1",
    }


def test_signs_say_which_method_is_better_than_which_rival():
    found = tables.outcome_signs(COMPARED)
    assert list(found.loc["a"].index) == ["t-tame-top", "rise", "iia", "score-cam"]
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
