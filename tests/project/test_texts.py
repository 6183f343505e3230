"""What is text stays text: in a page's box, in Markdown's tables and in LaTeX's."""

import html
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from mdit_py_plugins.colon_fence import colon_fence_plugin

from tests.project.test_pages import NOWHERE, a_manifest, pages
from ttame_book.editions.runs import Run
from ttame_book.report import tables

NAMES = [
    "`<img src=x onerror=alert(1)>`.png",
    "a|b.png",
    "``` ```` .png",
    "$(touch owned).png",
    "first\nsecond\n```\n:::\n# third.png",
    "\\|.png",
    "plain.png",
]


def rendered(text):
    markdown = MarkdownIt("commonmark").enable("table").use(colon_fence_plugin)
    outer = markdown.parse(text)
    assert [token.type for token in outer] == ["colon_fence"], "something ended the box"
    return markdown.render(outer[0].content)


@pytest.mark.happens(
    "Names that a shell or a page would read",
    "a photograph's name with HTML, backticks, | or ends of lines, in its page's box",
    "text",
)
@pytest.mark.parametrize("name", NAMES)
def test_a_photographs_name_is_text_in_the_box_of_its_page(name):
    command = f"papermill notebooks/00_explain.ipynb out.ipynb -p photo '{name}'"
    manifest = a_manifest(command=command, parameters={"edition": "smoke", "photo": name})
    shown = rendered(pages.boxes.notebook_box(manifest, [], "00_explain", NOWHERE))
    assert "<img" not in shown and "<h1" not in shown
    (block,) = re.findall(r"<pre><code[^>]*>(.*?)</code></pre>", shown, re.DOTALL)
    assert html.unescape(block) == f"make setup\n. .venv/bin/activate\n{command}\n"
    rows = re.findall(r"<tr>\s*<td>(.*?)</td>\s*<td>(.*?)</td>\s*</tr>", shown, re.DOTALL)
    cells = [html.unescape(re.sub("</?code>", "", cell)) for _, cell in rows]
    assert cells == ["smoke", " ".join(name.split())]


HOSTILE = "x<img src=x onerror=\"document.title='run'\">`|<script>document.title='run'</script>"


@pytest.mark.happens(
    "Names that a shell or a page would read",
    "HTML and a script in a photograph's name and in the name of a class, in a browser",
    "text: no element comes of it, and nothing runs",
)
@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium is found to show a page with")
@pytest.mark.slow
def test_a_browser_shows_names_and_runs_nothing(tmp_path):
    command = f"papermill notebooks/00_explain.ipynb out.ipynb -p photo '{HOSTILE}'"
    manifest = a_manifest(command=command, parameters={"photo": HOSTILE})
    run = Run("12_compare", {}, None, tmp_path)
    classes = pd.DataFrame({"class": [HOSTILE]}, pd.Index([HOSTILE], name="photo"))
    table = tables.save_display(run, classes, "table").to_html()
    body = rendered(pages.boxes.notebook_box(manifest, [], "00_explain", NOWHERE)) + table
    for name, shown in (("page", body), ("control", f"{body}<p>{HOSTILE}</p>")):
        page = tmp_path / f"{name}.html"
        page.write_text(f"<!doctype html><meta charset=utf-8><title>still</title>{shown}")
        words = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'user'}",
        ]
        browser = ["chromium", *words, "--dump-dom", page.as_uri()]
        done = subprocess.run(browser, capture_output=True, text=True, timeout=120, check=True)
        safe = name == "page"  # the control is not escaped, and shows that it would be seen
        assert (not re.search("<img|<script", done.stdout)) == safe
        assert ("<title>still</title>" in done.stdout) == safe
        assert html.unescape(re.sub("<[^>]*>", "", done.stdout)).count(HOSTILE) == 4


@pytest.mark.happens(
    "Killed or stopped", "a half-written file in the summary that the book copies", "left out"
)
def test_what_a_killed_run_left_is_in_no_book(tmp_path, monkeypatch):
    summary = tmp_path / "summary"
    for name in ("masking.md", ".part-machine-1-a/masking.md"):
        (summary / name).parent.mkdir(parents=True, exist_ok=True)
        (summary / name).write_text("# Masking")
    (summary / "claims.csv").write_text("number\n")
    monkeypatch.setattr(pages, "COMMITTED", tmp_path)
    written = {name: lambda *_: "" for name in vars(pages.chapters) if not name.startswith("_")}
    written |= {"facts": lambda _: {}, "settings": lambda _: {}, "backbones_of": lambda _: []}
    monkeypatch.setattr(pages, "chapters", SimpleNamespace(**written))
    told = {name: lambda *_: "" for name in vars(pages.trials) if not name.startswith("_")}
    told |= dict.fromkeys(("longer_facts", "explored_facts"), lambda _: {})
    monkeypatch.setattr(pages, "trials", SimpleNamespace(**told))
    drawn = dict.fromkeys(("write_figures", "write_maps", "write_drawing"), print)
    drawn = SimpleNamespace(**drawn, FIGURES="figures")
    monkeypatch.setattr(pages, "plots", drawn)
    monkeypatch.setattr(pages, "page", lambda _, target, __: {"page": target.stem, **a_manifest()})
    (tmp_path / "results" / "summary").mkdir(parents=True)
    shutil.copy(summary / "claims.csv", tmp_path / "results" / "summary")
    pages.main(tmp_path / "results", "A title")
    copied = tmp_path / "results" / "book" / "imagenette-summary"
    assert [f.relative_to(copied).as_posix() for f in sorted(copied.rglob("*"))] == [
        "claims.csv",
        "masking.md",
    ]


@pytest.fixture
def written(tmp_path):
    """A table with what Markdown and LaTeX would read, as both."""
    index = pd.Index(["a|b", "a_b&c"], name="name_of")
    cells = {"50 % #": ["{x}", "$1"], "AD(50) ↓": ["1.0 ±0.5", r"a\b"], "n": [1, 2]}
    run = Run("12_compare", {}, None, tmp_path)
    styled = tables.save_display(run, pd.DataFrame(cells, index), "table")
    return [(Path(tmp_path) / f"table{suffix}").read_text() for suffix in (".md", ".tex")], styled


@pytest.mark.happens(
    "Names that a shell or a page would read", "| in a cell of a Markdown table", "escaped"
)
def test_no_cell_of_a_markdown_table_is_read_as_two(written):
    (markdown, _), _ = written
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in markdown.splitlines()]
    assert [len(row) for row in rows] == [4] * 4
    assert rows[2][0].strip() == r"a\|b"


@pytest.mark.happens(
    "Names that a shell or a page would read",
    "&, #, $, %, _, braces or backslashes in a cell of a LaTeX table",
    "escaped",
)
def test_no_cell_of_a_latex_table_is_read_as_a_command(written):
    (_, latex), styled = written
    assert r"a\_b\&c & \$1 & a\textbackslash{}b & 2" in latex
    assert r"a|b & \{x\} & 1.0 $\pm$0.5 & 1" in latex
    assert r"50 \% \#" in latex and r"name\_of" in latex and r"AD(50) $\downarrow$" in latex
    assert "a_b&amp;c" in styled.to_html()
