"""Tables to read, and the forms in which they are written."""

import pandas as pd
import pytest

import ttame_book as tb
from ttame_book.report import tables


@pytest.fixture
def run(tmp_path):
    return tb.start_run("12_compare", {"edition": "smoke", "results": str(tmp_path)})


def means(*rows):
    """Means of backbone, method, measure, v, n and mean, with intervals of half a point either way."""
    columns = ["backbone", "method", "measure", "v", "n", "mean"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(low=table["mean"] - 0.5, high=table["mean"] + 0.5)


BOTH = means(
    ("a", "t-tame", "ad", 50, 20, 10.0),
    ("a", "rise", "ad", 50, 20, 30.0),
    ("a", "all-ones", "ad", 50, 20, 0.0),
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
    assert rows[2] == ["a", "t-tame", "20", "**10.0 ±0.5**", "*40.0 ±0.5*"]
    assert rows[3] == ["a", "rise", "20", "*30.0 ±0.5*", "**60.0 ±0.5**"]
    assert rows[4] == ["a", "all-ones", "20", "0.0 ±0.5", ""]
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
        ("b", "ad", 15, "t-tame", "t-tame-warm", 20, -1.0, 0.001),
        ("b", "ad", 15, "t-tame", "rise", 20, 1.0, 0.001),
        ("b", "ad", 15, "t-tame-warm", "rise", 20, -1.0, 0.2),
        ("b", "ic", 15, "t-tame-warm", "rise", 18, 1.0, 0.01),
        ("b", "ic", 15, "t-tame-warm", "random", 18, 1.0, 0.01),
        ("a", "ad", 15, "t-tame", "rise", 20, -1.0, 0.04),
    )
    counts = tables.outcome_counts(found)
    assert list(counts.columns) == ["t-tame", "t-tame-warm"]
    assert counts.loc[("b", "AD(15) ↓")].tolist() == ["0 / 0 / 1", "0 / 1 / 0"]
    assert counts.loc[("b", "IC(15) ↑")].tolist() == ["", "1 / 0 / 0"]  # no control, no sibling
    assert counts.loc[("a", "AD(15) ↓")].tolist() == ["1 / 0 / 0", ""]
    signs = tables.outcome_signs(found)
    assert signs.index.tolist() == [("b", "t-tame-warm"), ("b", "rise"), ("a", "rise")]
    assert signs.loc[("b", "rise")].tolist() == ["20, 18", "▼ ○", "· ▲"]
    assert signs.loc[("b", "t-tame-warm")].tolist() == ["20", "▲ ·", ""]
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
