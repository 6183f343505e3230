"""The explorer's data: which comparisons are in the page, and when there is no page."""

import json
import re
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest

from ttame_book.report import explorer
from ttame_book.report.intervals import paired_differences
from ttame_book.report.names import shown_name
from ttame_core.errors import TTAMEError

TEMPLATE = '# Explorer\n<script id="explorer-data">DATA</script>\n'
METHODS = ("t-tame", "t-tame-top", "rise", "grad-cam", "random")


@pytest.fixture
def book(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "explorer.md").write_text(TEMPLATE)
    return tmp_path / "book"


@lru_cache
def tables():
    """Scores of each image, and the differences of T-TAME's two variants."""
    rng = np.random.default_rng(0)
    rows = [
        ("x", method, measure, v, f"i{i}", rng.uniform(0, 100))
        for method in METHODS
        for measure, v in (("ad", 100), ("ad", 50), ("energy", 100), ("coverage", 100))
        for i in range(12)
    ]
    scores = pd.DataFrame(rows, columns=["backbone", "method", "measure", "v", "image_id", "value"])
    return scores, paired_differences(scores, METHODS[:2])


def edition(place, scores=True, backbone="demo_vit"):
    """Results of an edition with scores of each image, or with its differences alone."""
    of_images, differences = (table.assign(backbone=backbone) for table in tables())
    summary = place / "summary"
    summary.mkdir(parents=True)
    differences.to_csv(summary / "differences.csv", index=False)
    if scores:
        (place / backbone).mkdir()
        of_images.to_parquet(place / backbone / "scores.parquet")
        road = of_images[of_images["measure"] == "ad"].assign(measure="morf")
        road.to_parquet(place / backbone / "road.parquet")
    return place


def data(book):
    text = (book / "explorer.md").read_text()
    return json.loads(re.search('data">(.*)</script>', text)[1])


def test_the_page_has_every_pair_of_methods_once(book, tmp_path):
    results = edition(tmp_path / "demo")
    assert explorer.write_page(results, tmp_path / "none", book)
    (found,) = data(book)["sets"]
    assert found["key"] == "demo/demo_vit" and found["controls"] == ["Random map"]
    assert found["own"] == ["T-TAME", "T-TAME, top masks"]
    assert found["name"] == "Small ViT"
    shown = {shown_name(method).removesuffix(" (control)") for method in METHODS}
    assert set(found["methods"]) == shown
    measures = {m["key"]: m for m in found["measures"]}
    assert set(measures) == {"ad", "energy", "mean morf"}  # coverage has no better side
    assert measures["ad"]["direction"] == -1 and measures["energy"]["direction"] == 1
    assert [(c["v"], c["label"]) for c in measures["ad"]["cells"]] == [(100, "100 %"), (50, "50 %")]
    assert measures["energy"]["cells"][0]["label"] == "whole map"
    for cell in measures["ad"]["cells"]:
        pairs = [frozenset(row[:2]) for row in cell["rows"]]
        assert len(pairs) == len(set(pairs)) == 10  # of five methods
    (average,) = measures["mean morf"]["cells"]
    assert average["label"] == "mean over v" and len(average["rows"]) == 3  # of rivals alone


def test_the_differences_of_t_tame_are_those_told_everywhere(book, tmp_path):
    results = edition(tmp_path / "demo")
    explorer.write_page(results, tmp_path / "none", book)
    (found,) = data(book)["sets"]
    told = pd.read_csv(results / "summary" / "differences.csv")
    one = told[(told["measure"] == "ad") & (told["v"] == 50) & (told["rival"] == "rise")].iloc[0]
    place = found["methods"].index
    cell = found["measures"][0]["cells"][1]
    row = next(
        r for r in cell["rows"] if r[:2] == [place(shown_name(one["method"])), place("RISE")]
    )
    assert row[2:6] == [12, *(round(one[name], 2) for name in ("difference", "low", "high"))]
    assert row[6] == pytest.approx(one["p"], rel=0.01)


def test_another_edition_stands_beside_it_even_without_scores_of_images(book, tmp_path):
    committed = edition(tmp_path / "imagenette", scores=False, backbone="vgg16") / "summary"
    explorer.write_page(edition(tmp_path / "demo"), committed, book)
    first, second = data(book)["sets"]
    assert (first["name"], first["of"], second["of"]) == ("VGG-16", "imagenette", "demo")
    assert len(first["measures"][0]["cells"][0]["rows"]) == 7  # 4 of t-tame, 3 of t-tame-warm


def test_an_edition_that_is_the_committed_one_is_there_once(book, tmp_path):
    results = edition(tmp_path / "imagenette", scores=False)
    (results / "summary" / "explorer.json").write_text('{"shares": [100], "classifiers": {}}')
    explorer.write_page(results, results / "summary", book)
    found = data(book)
    assert len(found["sets"]) == 1 and "explored" not in found  # no image, no second half


def test_without_differences_there_is_no_page_and_it_is_said(book, tmp_path, capsys):
    assert not explorer.write_page(tmp_path / "demo", tmp_path / "none", book)
    assert not (book / "explorer.md").exists()
    assert "the explorer is left out" in capsys.readouterr().out


def test_one_image_has_no_interval_and_a_tag_in_a_name_stays_text(book, tmp_path):
    results = edition(tmp_path / "demo", scores=False, backbone="</script><b>")
    file = results / "summary" / "differences.csv"
    pd.read_csv(file).assign(n=1, low=np.nan, high=np.nan).to_csv(file, index=False)
    explorer.write_page(results, tmp_path / "none", book)
    assert (book / "explorer.md").read_text().count("</script>") == 1
    (found,) = data(book)["sets"]
    assert found["name"] == "</script><b>"
    assert found["measures"][0]["cells"][0]["rows"][0][4:6] == [None, None]


def test_a_broken_file_is_named(book, tmp_path):
    results = edition(tmp_path / "demo", scores=False)
    (results / "summary" / "explorer.json").write_text("{")
    with pytest.raises(TTAMEError, match=r"explorer\.json is broken"):
        explorer.write_page(results, tmp_path / "none", book)
