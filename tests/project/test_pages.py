"""Pages of the book, made of executed notebooks and their manifests."""

import base64
import csv
import importlib
import io
import json
import re
import shutil
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from tests.commands import ROOT
from ttame_book.editions.counts import Work
from ttame_book.editions.graph import STEPS
from ttame_book.studies import exploration

sys.path.append(str(ROOT / "book"))
pages = importlib.import_module("pages")
NAME = "04_evaluate"
NOWHERE = {"url": "", "branch": "main"}
SOMEWHERE = {"url": "https://github.com/who/what", "branch": "main"}


def shown(html="", text="", **metadata):
    data = {"text/html": html} if html else {"text/plain": text}
    return new_output("display_data", data, metadata=metadata)


def a_notebook(question="**Question.** How good?"):
    """A notebook like those of the project, executed."""
    table = shown("<table><tr><td>1</td></tr></table>")
    progress = shown(text="demo_vit: 1/2", progress=True)
    return new_notebook(
        cells=[
            new_markdown_cell("# Evaluation\nWhat it is.", id="title"),
            new_markdown_cell(question, id="question"),
            new_code_cell("steps = 1", id="given", metadata={"tags": ["parameters"]}),
            new_code_cell("steps = 2", id="put", metadata={"tags": ["injected-parameters"]}),
            new_code_cell("import torch", id="needs", metadata={"tags": ["imports"]}),
            new_code_cell("draw()", id="figure", outputs=[progress, shown(text="<Figure>")]),
            new_markdown_cell(
                "*The higher,\nthe better.*\n\nMore of it.",
                id="caption",
                metadata={"tags": ["caption"]},
            ),
            new_code_cell("table()", id="table", outputs=[table]),
            new_markdown_cell("*Nothing* is drawn above.", id="words"),
            new_code_cell(
                "import seen", id="both", outputs=[table], metadata={"tags": ["imports"]}
            ),
        ]
    )


def a_manifest(**changes):
    return {
        "run_id": "x",
        "notebook": NAME,
        "edition": "smoke",
        "parameters": {"edition": "smoke", "backbone": "demo_vit", "methods": ["rise"]},
        "command": f"papermill notebooks/{NAME}.ipynb {NAME}-out.ipynb -p backbone demo_vit",
        "commit": "abc123+",
        "started": "2026-03-04T05:06:07+00:00",
        "seconds": 61.7,
        "device": "cpu",
        "precision": {"demo_vit": "float32"},
        "seed": 0,
        "threads": 2,
        "versions": {"python": "3.11", "torch": "2.14.1"},
        "outputs": ["means.csv", "scores.parquet", "measures.svg"],
        "peak_memory_gb": 1.5,
        **changes,
    }


def write(folder, name=NAME, notebook=None, **changes):
    """Put an executed notebook, its manifest and its files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook or a_notebook(), folder / f"{name}.ipynb")
    manifest = a_manifest(notebook=name, **changes)
    (folder / f"{name}.json").write_text(json.dumps(manifest))
    for file in manifest["outputs"]:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(f"{name} {file}")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project's notebooks as they are now: the question's words have changed since."""
    (tmp_path / "notebooks").mkdir()
    for name in (NAME, "12_compare", "00_explain", "02_backbones", "05_road"):
        now = a_notebook("**Question.** How good now?")
        now.cells[5].source = "draw(again)"
        nbformat.write(now, tmp_path / "notebooks" / f"{name}.ipynb")
    monkeypatch.setattr(pages, "NOTEBOOKS", tmp_path / "notebooks")
    none = pd.DataFrame()  # all pairs of what is committed take seconds
    monkeypatch.setattr(pages.explorer, "paired_differences", lambda *_: none)
    monkeypatch.setattr(pages.plots, "save", save)
    return tmp_path


def save(figure, file, data=None):
    """In place of drawing, which takes seconds: the files of a figure, empty."""
    for kind in (".svg", ".pdf", ".csv")[: 1 if data is None else 3]:
        file.with_suffix(kind).touch()
    plt.close(figure)


@pytest.fixture
def made(project):
    """A page's cells by their names, what `page` returned, and the page's folder."""
    write(project / "results" / "demo_vit")
    folder = project / "results" / "book" / "demo_vit"
    about = pages.page(project / "results" / "demo_vit", folder / f"{NAME}.ipynb", NOWHERE)
    cells = nbformat.read(folder / f"{NAME}.ipynb", 4).cells
    return {cell.id: cell for cell in cells}, about, folder


def tags(cell):
    return set(cell.metadata.get("tags", []))


def test_a_page_hides_the_plumbing_and_nothing_else(made):
    cells, _, _ = made
    gone = {name for name, cell in cells.items() if "remove-cell" in tags(cell)}
    folded = {name for name, cell in cells.items() if "hide-input" in tags(cell)}
    code = {name for name, cell in cells.items() if cell.cell_type == "code"}
    assert gone == {"install", "given", "put"} and folded == code - gone


def test_a_page_shows_results_without_progress_and_tables_at_full_width(made):
    cells, _, _ = made
    (figure,) = cells["figure"].outputs
    assert figure.data["text/plain"] == "<Figure>"
    assert "full-width" in tags(cells["table"]) and "full-width" not in tags(cells["figure"])
    assert "<table" in cells["table"].outputs[0].data["text/html"]
    assert tags(cells["both"]) >= {"hide-input", "full-width"}


def test_a_figures_caption_is_its_text_for_those_who_do_not_see_it(made):
    cells, _, _ = made
    assert cells["figure"].metadata["mystnb"]["image"]["alt"] == "The higher, the better."
    assert "mystnb" not in cells["table"].metadata


def test_no_page_has_controls_that_need_a_kernel(project):
    notebook = a_notebook()
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}}
    controls = new_code_cell("interact(tried)", id="controls", metadata={"tags": ["controls"]})
    controls.outputs = [new_output("display_data", view)]
    notebook.cells.append(controls)
    notebook.metadata["widgets"] = {"state": {}}
    write(project / "results" / "demo_vit", notebook=notebook)
    made = project / "results" / "book" / f"{NAME}.ipynb"
    pages.page(project / "results" / "demo_vit", made, NOWHERE)
    written = nbformat.read(made, 4)
    assert "widgets" not in written.metadata
    assert "remove-cell" in tags(written.cells[-1])
    of_the_project = nbformat.read(ROOT / "notebooks" / "00_explain.ipynb", 4).cells
    (own,) = (cell for cell in of_the_project if "controls" in tags(cell))
    assert "interact(" in own.source and "tried()" in own.source.partition("else:")[2]


@pytest.mark.parametrize("session", [{}, {"JPY_SESSION_NAME": "00_explain.ipynb"}])
def test_controls_are_made_where_a_server_opened_the_notebook_and_not_in_a_batch(
    session, monkeypatch
):
    shown, made = [], []
    monkeypatch.setattr("ipywidgets.interact", lambda call, **controls: made.append(controls))
    names = {"photo": "mine.jpg", "explainer": "mine", "classes": ["cat"], "examples": Path("x")}
    names |= {"display": shown.append, "explained": lambda *given: given, "environ": session}
    names |= {"exploration": exploration, "plt": SimpleNamespace(close=int), "find_spec": find_spec}
    cells = nbformat.read(ROOT / "notebooks" / "00_explain.ipynb", 4).cells
    exec(next(cell.source for cell in cells if "controls" in tags(cell)), names)
    if not session:
        assert not made
        assert shown == [("mine.jpg", "mine", ["cat"], keep) for keep in (None, 15)]
        return
    assert list(made[0]) == ["photograph", "classifier", "named", "v"] and not shown
    names["tried"]("other.jpg", "mine", " dog, cat ,", made[0]["v"].value)
    assert shown == [("other.jpg", "mine", ["dog", "cat"], keep) for keep in (None, 15)]


def test_charts_are_lightened_and_photographs_are_no_png():
    flat = Image.new("RGB", (300, 200), "white")
    flat.paste((1, 115, 178), (20, 20, 200, 100))
    noise = Image.effect_noise((200, 200), 60).convert("RGB")
    for picture, kind in ((flat, "image/png"), (noise, "image/jpeg")):
        file = io.BytesIO()
        picture.save(file, "PNG", compress_level=1)
        data = {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": "<Figure>"}
        before = len(data["image/png"])
        pages.lighten(data)
        assert set(data) == {kind, "text/plain"} and len(data[kind]) < before
        shown = Image.open(io.BytesIO(base64.b64decode(data[kind]))).convert("RGB")
        assert shown.size == picture.size
        assert kind == "image/jpeg" or shown.tobytes() == picture.tobytes()


def test_a_long_table_is_behind_the_fold_of_its_code(project):
    notebook = a_notebook()
    long = shown(f"<table>{'<tr><td>1</td></tr>' * (pages.MOST_ROWS + 1)}</table>")
    notebook.cells[7].outputs = [long]
    write(project / "results" / "demo_vit", notebook=notebook)
    made = project / "results" / "book" / f"{NAME}.ipynb"
    pages.page(project / "results" / "demo_vit", made, NOWHERE)
    cells = {cell.id: cell for cell in nbformat.read(made, 4).cells}
    assert "hide-cell" in tags(cells["table"]) and "hide-input" not in tags(cells["table"])
    assert "21 rows" in cells["table"].metadata["mystnb"]["code_prompt_show"]
    assert "hide-cell" not in tags(cells["both"])


def test_no_caption_is_left_where_nothing_was_drawn(project):
    notebook = a_notebook()
    notebook.cells[5].outputs = [new_output("stream", text="this edition has none")]
    write(project / "results" / "demo_vit", notebook=notebook)
    made = project / "results" / "book" / f"{NAME}.ipynb"
    pages.page(project / "results" / "demo_vit", made, NOWHERE)
    cells = {cell.id: cell for cell in nbformat.read(made, 4).cells}
    assert cells["caption"].source == "More of it."


def test_words_are_todays_and_code_is_what_ran(made):
    cells, _, _ = made
    assert cells["question"].source == "**Question.** How good now?"
    assert cells["figure"].source == "draw()"


def test_a_page_is_titled_by_its_backbone_and_begins_with_how_to_make_it_again(made):
    cells, about, folder = made
    first, box, *_ = cells.values()
    assert first.source.splitlines()[0] == "# Small ViT: evaluation"
    assert tags(box) == {"reproduce"}
    assert a_manifest()["command"] in box.source
    assert "Commit `abc123+`, 62 s on cpu, float32." in box.source
    assert "| `methods` | `['rise']` |" in box.source and "config/smoke.yaml" in box.source
    assert about["page"] == f"demo_vit/{NAME}" and about["commit"] == "abc123+"
    copied = {file.name: file.read_text() for file in folder.iterdir() if file.suffix != ".ipynb"}
    shown = ("means.csv", "measures.svg")  # what can be read and seen, no more
    assert copied == {f"{NAME}-{name}": f"{NAME} {name}" for name in shown}
    for name in shown:
        assert f"{{download}}`{NAME}-{name} </demo_vit/{NAME}-{name}>`" in box.source
    assert "parquet" not in box.source
    assert f'<a href="../_sources/demo_vit/{NAME}.ipynb" download>' in box.source
    assert f"{{download}}`{NAME} </sources/{NAME}.ipynb>` (`make lab N=04`)" in box.source


def a_box(at=NOWHERE, files=(), **changes):
    return pages.boxes.notebook_box(a_manifest(**changes), files, "demo_vit/04_evaluate", at)


def test_what_a_page_is_of_is_in_front_of_its_title():
    assert pages.titled("# How many?\n\nText", "Small ViT") == "# Small ViT: how many?\n\nText"
    assert pages.titled("# ROAD: how\n", "Small ViT") == "# Small ViT, ROAD: how\n"


def test_what_a_run_has_written_is_told_by_the_box_alone(project):
    notebook = a_notebook()
    said = new_output("stream", text="written to results/smoke: means.csv")
    notebook.cells.append(new_code_cell("run.finish()", id="last", outputs=[said]))
    write(project / "results" / "demo_vit", notebook=notebook)
    made = project / "results" / "book" / f"{NAME}.ipynb"
    pages.page(project / "results" / "demo_vit", made, NOWHERE)
    assert "remove-cell" in tags(nbformat.read(made, 4).cells[-1])
    latest = [nbformat.read(file, 4).cells for file in (ROOT / "notebooks").glob("*.ipynb")]
    assert all(any(cell.source.strip() == pages.LAST for cell in cells) for cells in latest)


def test_a_run_without_data_offers_none():
    assert "Data and figures" not in a_box()
    assert "</a.csv>`, {download}`b.csv </x/b.csv>`" in a_box(files=["a.csv", "x/b.csv"])


def test_the_command_for_all_pages_has_the_edition_and_the_folder_of_photographs():
    assert "`make book EDITION=smoke` makes it" in a_box()
    given = {"edition": "smoke", "data_root": "/my photos"}
    assert "`make book EDITION=smoke DATA='/my photos'` makes it" in a_box(parameters=given)


def test_a_notebook_is_opened_elsewhere_where_the_project_has_an_address():
    assert "http" not in a_box() and "Colab" not in a_box()
    text = a_box(SOMEWHERE)
    place = f"who/what/blob/main/notebooks/{NAME}.ipynb"
    assert f"`make lab N=04`, [source](https://github.com/{place})" in text
    assert f"[Colab](https://colab.research.google.com/github/{place})" in text
    binder = "https://mybinder.org/v2/gh/who/what/main?labpath=notebooks/"
    assert f"[Binder]({binder}{NAME}.ipynb)" in text
    assert pages.boxes.install_line(SOMEWHERE) in text
    assert yaml.safe_load((pages.PROSE / "_config.yml").read_text())["repository"].keys() == {
        *("url", "branch")
    }


@pytest.mark.parametrize(
    ("at", "lines"),
    [
        (NOWHERE, []),
        (SOMEWHERE, ["git clone --quiet https://github.com/who/what ttame", "cd ttame"]),
    ],
)
@pytest.mark.parametrize("installed", [True, False])
def test_a_downloaded_notebook_first_gets_what_it_lacks(at, lines, installed, monkeypatch):
    ran = []
    shell = SimpleNamespace(
        system=ran.append, run_line_magic=lambda name, line: ran.append(f"{name} {line}")
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda _: shell if installed else None)
    source = TransformerManager().transform_cell(pages.boxes.install_line(at))
    exec(source, {"get_ipython": lambda: shell})
    assert ran == ([] if installed else [*lines, 'pip install --quiet -e ".[book]"'])


def test_a_page_offers_the_figures_and_tables_that_it_shows_and_no_file_that_is_missing(tmp_path):
    for name in ("figures/a.svg", "figures/a.csv", "of-summary/b.md", "of-summary/b.csv", "c.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    words = "# A\n\n```{image} figures/a.svg\n```\n```{include} of-summary/b.md\n```\n"
    (tmp_path / "page.md").write_text(words)
    data = ["c.csv", "d.csv"]
    pages.boxes.add_box(tmp_path / "page.md", "make", "Made.", data, [NAME], NOWHERE)
    text = (tmp_path / "page.md").read_text()
    assert text.startswith(words.rstrip()) and "```bash\nmake\n```\nMade. Notebooks:" in text
    offered = [part.partition(">`")[0] for part in text.split("{download}`")[1:]]
    offered = [part.partition(" </")[2] for part in offered]
    assert offered[0] == f"sources/{NAME}.ipynb"
    assert offered[1:] == [
        *("c.csv", "figures/a.csv", "figures/a.svg", "of-summary/b.csv", "of-summary/b.md")
    ]


def test_the_table_of_families_is_shown_with_counts_and_says_once_what_holds_for_all(tmp_path):
    no_vit = "is no ViT with plain self-attention and a class token"
    row = "a,{0},m{0},tap,8@4x3,{1},{2},raw\n".format
    rows = [
        row(1, "t-tame", f'"transformer-lrp, attention-rollout: m1 {no_vit}"'),
        row(
            2, "t-tame", f'"iia, transformer-lrp, attention-rollout: m2 {no_vit}; rise: too large"'
        ),
        row(3, "", "no taps found; choose some"),
    ]
    head = "library,family,member,taps,maps,served by,not by,raw\n"
    (tmp_path / "families.csv").write_text(head + "".join(rows))
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "families.md").write_text("T-TAME serves COUNTS.")
    pages.listings.write_families(tmp_path / "families.csv", tmp_path / "book")
    assert (tmp_path / "book" / "families.md").read_text() == "T-TAME serves 2 of 3 of a."
    shown = list(csv.DictReader((tmp_path / "book" / "families.csv").open(newline="")))
    assert [r["what does not serve it"] for r in shown] == [
        "",
        "iia: no plain ViT; rise: too large",
        "no taps found; choose some",
    ]
    assert shown[0]["family, by its member"] == "a: m1" and shown[0]["maps"] == "8@4x3"
    assert (ROOT / "book" / "families.md").read_text().count("COUNTS") == 1
    assert (
        no_vit == pages.listings.NO_PLAIN_VIT
        and no_vit in (ROOT / "book" / "families.csv").read_text()
    )


@pytest.fixture
def costs(tmp_path, monkeypatch):
    """What writes the page of costs, with work of two rules and rates of a device that is given."""
    works = [
        Work("train", "vgg16", "training step", 3600e6, 32),
        Work("road", "vgg16", "ROAD", 400e6, 50),
    ]
    monkeypatch.setattr(pages.listings.counts, "count", lambda edition: works)
    (tmp_path / "rates").mkdir()
    (tmp_path / "book").mkdir()
    of_it = {"classifier": "vgg16", "what": "forward, bfloat16", "batch": 32, "images/s": 1000}

    def write(**devices):
        for name, device in devices.items():
            table = {"device": device, "rows": [of_it, {**of_it, "what": "forward, float32"}]}
            (tmp_path / "rates" / f"{name}.json").write_text(json.dumps(table))
        page = tmp_path / "book" / "costs.md"
        page.write_text("TOTAL, SHARE %, RATE for a day, SHORT with EIGHTH, HOURS")
        pages.listings.write_costs(tmp_path / "rates", tmp_path / "book")
        rows = list(csv.reader((tmp_path / "book" / "costs.csv").open(newline="")))
        return page.read_text(), rows

    return write


def test_the_page_of_costs_counts_where_no_gpu_was_measured(costs, tmp_path):
    (tmp_path / "rates" / "growth-cpu.json").write_text('{"device": "CPU", "rows": [{"ms": 1}]}')
    text, rows = costs(cpu="CPU")
    assert (
        text
        == "4,000, 90 %, 46,296 for a day, 46,296 with 40000, How many hours that is has not been measured on a GPU yet."
    )
    assert rows == [
        ["rule", "what is counted", "vgg16", "all"],
        ["train", pages.listings.COUNTED["train"], "3,600.00", "3,600.00"],
        ["road", pages.listings.COUNTED["road"], "400.00", "400.00"],
    ]


def test_the_page_of_costs_tells_the_hours_of_each_gpu_that_was_measured(costs):
    text, rows = costs(one="NVIDIA H100", two="NVIDIA A100")
    # 4000 million at 1000 a second
    guessed = "Not timed there, and taken for bare forwards: ROAD of vgg16, training step of vgg16."
    assert text.endswith(
        " ".join(
            f"NVIDIA {name} takes 1,111 hours for them. {guessed}" for name in ("H100", "A100")
        )
    )
    assert rows[0][-2:] == ["hours on NVIDIA H100", "hours on NVIDIA A100"]
    assert [row[-1] for row in rows[1:]] == ["1,000.0", "111.1"]


def test_the_page_of_costs_has_a_place_for_each_number_and_words_for_each_rule():
    text = (ROOT / "book" / "costs.md").read_text()
    assert [
        text.count(word) for word in ("TOTAL", "SHARE", "HOURS", "RATE", "SHORT", "EIGHTH")
    ] == 6 * [1]
    assert set(pages.listings.COUNTED) == {step.rule for step in STEPS}


def test_a_run_without_a_classifier_has_no_precision():
    assert pages.boxes.runs_on({"device": "cpu"}) == "cpu"
    both = {"device": "A100", "precision": {"a": "bfloat16", "b": "bfloat16"}}
    assert pages.boxes.runs_on(both) == "A100, bfloat16"


def test_the_contents_link_each_table_of_the_paper_to_the_pages_that_there_are():
    told = pages.listings.contents(
        ["12_compare", "demo_vit/05_road", "a/05_road", "demo_vit/04_evaluate"]
    )
    rows = {line.split("|")[1].strip(): line for line in told.splitlines() if line.startswith("|")}
    assert "[overview](/12_compare)" in rows["Tables IV, V"]
    assert "[Small ViT](/demo_vit/05_road), [a](/a/05_road)" in rows["Tables IV, V"]
    assert "04_evaluate" not in rows["Tables IV, V"]
    assert "[Small ViT](/demo_vit/04_evaluate)" in rows["Tables II, III"]
    assert "/" not in rows["Figure 15"].partition("methods")[2]  # no such page


def test_the_contents_name_notebooks_that_exist():
    known = {file.stem for file in (ROOT / "notebooks").glob("*.ipynb")}
    named = {name for _, notebooks in pages.listings.PAPER.values() for name in notebooks}
    assert {*named, pages.OVERVIEW, pages.CLASSIFIERS} <= known


def test_the_provenance_has_a_row_a_page():
    told = pages.listings.provenance([{**a_manifest(), "page": "demo_vit/05_road"}])
    row = next(line for line in told.splitlines() if "05_road" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:] == ["2026-03-04 05:06", "62", "1.5", "cpu, float32", "2", "0", "`abc123+`"]
    assert "| torch | 2.14.1 |" in told


class Late:
    """Another process that has done nothing until it is asked for what it has done."""

    def __init__(self, processes):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass

    def submit(self, function, *args):
        """Note what to do."""
        return SimpleNamespace(result=partial(function, *args))


def test_the_book_has_every_page_that_ran_and_lists_each_once(project, monkeypatch):
    # to draw them takes 20 s, and test_notebooks.py does
    monkeypatch.setattr(pages.plots, "save_both", lambda draw, file, data: file.touch())
    monkeypatch.setattr(pages, "ProcessPoolExecutor", Late)
    results = project / "results"
    of_all = {"edition": "smoke"}
    write(results, "12_compare", parameters=of_all, outputs=["summary/other.csv"])
    write(results, "00_explain", parameters=of_all, outputs=[])
    write(results / "backbones", "02_backbones", parameters=of_all, outputs=[])
    for backbone, names in (("demo_vit", (NAME, "05_road")), ("demo_resnet", ("05_road",))):
        for name in names:
            write(results / backbone, name, outputs=["means.csv"])
    (results / "demo_resnet" / f"{NAME}.ipynb").write_text("killed: no manifest")
    for name in (
        "means",
        "differences",
        "claims",
        "claims-evidence",
    ):  # of other classifiers: those here are galleries
        shutil.copy(pages.COMMITTED / "summary" / f"{name}.csv", results / "summary")
    (results / "logs").mkdir()
    (results / "book").mkdir()
    (results / "book" / "old.ipynb").touch()
    pages.main(results, "Smoke & mirrors")
    book = results / "book"
    made = {f.relative_to(book).with_suffix("").as_posix() for f in book.rglob("*.ipynb")}
    sources = {name for name in made if name.startswith("sources/")}
    assert len(sources) == 5  # all that the project has
    made -= sources
    expected = {"12_compare", "00_explain", "backbones/02_backbones", "demo_resnet/05_road"}
    assert made == expected | {"demo_vit/04_evaluate", "demo_vit/05_road"}
    toc = yaml.safe_load((book / "_toc.yml").read_text())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    assert len(chapters) == 15  # and the first page
    for chapter in chapters:  # grows by what is behind each
        chapters += chapter.get("sections", [])
    listed = [chapter["file"] for chapter in chapters]
    assert not [name for name in listed[:15] if "/" in name]  # behind the overview
    overview = nbformat.read(book / "12_compare.ipynb", 4).cells[1].source
    assert "- [](/demo_vit/index)\n" in overview and "- [](/backbones/02_backbones)\n" in overview
    assert len(listed) == len(set(listed))
    assert made <= {*listed, toc["root"]}
    texts = {*listed, toc["root"]} - made
    assert texts >= {"contents", "provenance", "explorer"}
    assert all((book / f"{text}.md").is_file() for text in texts)
    # included in others
    fragments = {"answer", "against-rise", "longer", "lengths", "costs-shown", "saturation"}
    fragments |= {"classes", "explored"}
    assert {f.stem for f in book.glob("*.md")} <= {*texts, *fragments}  # no orphan: a warning
    assert "Smoke & mirrors" in {part["caption"] for part in toc["parts"]}
    assert (book / "12_compare-other.csv").read_text() == "12_compare summary/other.csv"
    assert "demo_vit/05_road" in (book / "provenance.md").read_text()
    for text in texts:
        words = (book / f"{text}.md").read_text()
        shows = "figures/" in words or "{include}" in words or "csv-table" in words
        if shows or text.startswith("photographs-"):
            assert "Reproduce this page" in words and "Data and figures" in words, text
        for figure in re.findall(r"\bfigures/[\w.-]+\.svg", words):
            assert f"</{figure}>" in words, (text, figure)  # to download
