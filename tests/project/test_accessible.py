"""What each page's words and tables become: what is read stays, and its lines do not break."""

import importlib.util
import re
from types import SimpleNamespace

import pandas as pd
import pytest

from tests.commands import ROOT
from ttame_book.report.tables import as_text

SPACE = "\N{NO-BREAK SPACE}"
_spec = importlib.util.spec_from_file_location(
    "accessible", ROOT / "book" / "_ext" / "accessible.py"
)
accessible = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(accessible)


def mended(body, source=ROOT / "book", **context):
    context |= {"body": body, "pathto": lambda page: f"../{page}.html"}
    accessible.mend(SimpleNamespace(srcdir=source), "page", "page.html", context, None)
    return context


def test_a_figure_has_its_twin_on_a_small_screen_where_there_is_one(tmp_path):
    (tmp_path / "_static" / "narrow").mkdir(parents=True)
    twins, alone = ("forest.svg", "answer.png"), "road.svg"
    for name in twins:
        (tmp_path / "_static" / "narrow" / name).touch()
    told = {name: f'<img alt="it" src="../_images/{name}">' for name in (*twins, alone)}
    found = {name: mended(image, tmp_path)["body"] for name, image in told.items()}
    for name in twins:
        twin = f'<picture><source media="(max-width: 40rem)" srcset="../_static/narrow/{name}">'
        assert f"{twin}{told[name]}</picture>" in found[name]
    assert "<picture>" not in found[alone] and told[alone] in found[alone]


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_tables_head_is_one_row_with_a_name_over_each_column(levels):
    names = [f"level {i}" for i in range(levels)]
    index = pd.MultiIndex.from_tuples([("a",) * levels, ("b",) * levels], names=names)
    index = index if levels > 1 else pd.Index(["a", "b"], name=names[0])
    table = as_text(pd.DataFrame({"AD(50) ↓": [1, 2], "IC": [3, 4]}, index))
    head, body = mended(table.to_html())["body"].split("<tbody>")
    assert [text.strip() for text in re.findall("<th [^>]*>([^<]*)<", head)] == [
        *names,
        f"AD(50){SPACE}↓",
        "IC",
    ]
    assert head.count("<tr>") == 1
    assert len(re.findall("<t[hd] ", body.split("</tr>")[0])) == levels + 2


def test_words_stay_the_same_and_no_number_loses_what_belongs_to_it():
    told = "<p>T-TAME keeps 50 % of it: 7 level, 1 worse, 3.4 ±0.2, n = 100, claimed &lt; 0.</p>"
    found = mended(told)["body"]
    assert re.sub("</?span[^>]*>", "", found).replace(SPACE, " ") == told
    assert '<span class="whole">T-TAME</span> keeps' in found
    whole = ("50_%_of".replace("_%_", f"{SPACE}% "), "7_level", "1_worse", "3.4_±0.2", "n_=_100")
    for words in (*whole, "&lt;_0."):
        assert words.replace("_", SPACE) in found


@pytest.mark.parametrize(
    "kept",
    [
        "<pre><span>a = 5 % T-TAME</span></pre>",
        "<code>n = 100</code>",
        '<script type="application/json">{"a": "T-TAME 50 %"}</script>',
        '<a href="T-TAME" title="50 % of it">it</a>',
    ],
)
def test_code_data_and_addresses_stay_as_they_are(kept):
    assert mended(kept)["body"] == kept


def test_a_cell_with_a_sentence_wraps_and_others_do_not():
    sentence = "A sentence of more than forty characters, to be read."
    cells = f'<td class="data">{sentence}</td><td class="data">12.0</td>'
    assert mended(cells)["body"] == cells.replace("<td", "<td data-long", 1)


def test_the_footers_link_leads_to_the_page_from_anywhere():
    footer = mended("", theme_extra_footer='<a href="CITE">it</a>')["theme_extra_footer"]
    assert footer == '<a href="../cite.html">it</a>'
