"""Turn an edition's executed notebooks and the prose into the source folder of its book.

python book/pages.py results/demo "Title of the edition"
"""

import base64
import io
import json
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import boxes
import chapters
import listings
import nbformat
import plots
import trials
import yaml
from PIL import Image

from ttame_book.report import explorer
from ttame_book.report.names import shown_name

PROSE = Path(__file__).parent
NOTEBOOKS = PROSE.parent / "notebooks"
COMMITTED = PROSE.parent / "results" / "imagenette"
OTHERS = COMMITTED.with_name("other-classes")
EXPLORED = COMMITTED.with_name("amortised-rise")
SUMMARY = "imagenette-summary"  # its summary in the book
RATES = PROSE.parent / "benchmarks" / "results"
MOST_ROWS = 20  # of a table that is read on a page: longer ones are looked up in
HIDDEN = {
    "parameters",
    "injected-parameters",
    "controls",
}  # what no page shows: its box has the former
LAST = "run.finish()"  # it prints names of files: the box has these, too
REFERENCE = ("measures", "methods", "contents", "situations", "provenance", "glossary", "cite")
OVERVIEW, CLASSIFIERS = "12_compare", "02_backbones"
IMAGES = ("images",)  # of the demo, whose edition has the notebooks with no classifier of its own

MEASURE = "make book EDITION=imagenette"
JUDGED = ("04_evaluate", "05_road", OVERVIEW)
SCORES = {
    "intro": (["differences.csv"], ["03_train", *JUDGED]),
    "photographs": (["means.csv", "differences.csv", "costs.csv"], [*JUDGED, "06_qualitative"]),
    "photographs-*": (["means.csv", "differences.csv"], JUDGED),
    "claims": (["claims.csv", "claims-evidence.csv"], [OVERVIEW]),
    "short-training": (["convergence.csv"], ["09_convergence", "07_ablations", OVERVIEW]),
    "explorer": (["differences.csv"], [OVERVIEW]),
    "record": ([], JUDGED),
    "trials": ([], ["07_ablations", "08_hyperparameters", "09_convergence"]),
}
"""Pages made of committed scores: files of their summary, notebooks that make such."""
LISTS = {
    "method": ("", "It draws the figure from the code.", []),
    "contents": ("", "It lists what has run.", []),
    "provenance": ("", "It reads the manifests of all runs.", []),
    "situations": (
        "python -m tests.situations > book/situations.md",
        "It reads the tests' own marks; `make test` tries each.",
        [],
    ),
    "use": (
        "python book/picture.py",
        "It draws the cat, and the first page's photograph.",
        [],
    ),
    "families": (
        "python benchmarks/families.py",
        "It builds one member of each family, with random weights.",
        ["families.csv"],
    ),
    "costs": (
        "python -m ttame_book.editions.hours",
        "It counts; with a table of rates behind it, hours too.",
        ["costs.csv"],
    ),
}
"""Pages made by a command of their own, or with the book, what it does, and their data."""


def main(results: Path, title: str) -> None:
    """Write ``results/book`` anew: prose, figures, pages."""
    book = results / "book"
    for old in book.glob("*"):
        if old.name != "_build":  # what the last build left is overwritten by the next
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    book.mkdir(parents=True, exist_ok=True)
    hidden = shutil.ignore_patterns(".*", "__pycache__")  # what a killed run left
    for copied in ("_static", "_ext"):
        shutil.copytree(PROSE / copied, book / copied, ignore=hidden)
    for prose in (f for kind in ("md", "csv", "bib") for f in PROSE.glob(f"*.{kind}")):
        shutil.copy(prose, book / prose.name)
    figures = book / plots.FIGURES
    figures.mkdir()
    with ProcessPoolExecutor(1) as another:  # draws half of the time, while this one writes
        drawn = another.submit(plots.write_figures, COMMITTED, figures)
        plots.write_maps(COMMITTED, figures)
        plots.write_drawing(figures / "method.svg")
        write_pages(results, book, title, drawn)


def write_pages(results: Path, book: Path, title: str, drawn: Future) -> None:
    """Write all but figures: settings, table of contents, pages, with boxes once they are drawn."""
    listings.write_families(PROSE / "families.csv", book)
    listings.write_costs(RATES, book)
    real = write_photographs(results, book)
    config = yaml.safe_load((PROSE / "_config.yml").read_text())
    config["parse"]["myst_substitutions"] = {
        **chapters.facts(COMMITTED),
        "unseen": trials.sentence(OTHERS),
        "parts": trials.parts(COMMITTED),
        **trials.longer_facts(COMMITTED),
        **trials.explored_facts(EXPLORED),
    }
    published = config.pop("repository")
    (book / "_config.yml").write_text(yaml.safe_dump(config, allow_unicode=True))
    write_sources(book / boxes.SOURCES, published)
    manifests = [page(results, book / f"{OVERVIEW}.ipynb", published)]
    ran = []  # pages behind the overview
    if (results / "backbones" / f"{CLASSIFIERS}.ipynb").is_file():
        made = book / "backbones" / f"{CLASSIFIERS}.ipynb"
        manifests.append(page(results / "backbones", made, published))
        ran.append(entry(f"backbones/{CLASSIFIERS}"))
    for folder in sorted(place for place in results.iterdir() if place.is_dir()):
        names = [] if folder.name in ("backbones", "book") else executed(folder)
        if not names:
            continue
        place = book / folder.name
        manifests += [page(folder, place / f"{name}.ipynb", published) for name in names]
        index = chapters.folder_page(results, folder.name, names)
        (place / "index.md").write_text(index)
        ran.append(entry(f"{folder.name}/index", [f"{folder.name}/{name}" for name in names]))
    if ran:
        link(book / f"{OVERVIEW}.ipynb", [each["file"] for each in ran])
    own = [name for name in executed(results) if name != OVERVIEW]
    manifests += [page(results, book / f"{name}.ipynb", published) for name in own]
    (book / "provenance.md").write_text(listings.provenance(manifests))
    (book / "contents.md").write_text(
        listings.contents([manifest["page"] for manifest in manifests])
    )
    answers = [
        entry("method"),
        entry("photographs", [*real, "record"]),
        entry("claims"),
        entry("short-training", ["trials"]),
    ]
    if explorer.write_page(results, COMMITTED / "summary", book):
        answers.append(entry("explorer"))
    drawn.result()  # a box offers the files that are there
    add_boxes(boxes.of_all(manifests[0]), book, published)
    use = [entry("use", [*own, "families"]), entry("rerun", ["beyond", "costs"])]
    parts = [
        {"caption": "The answer", "chapters": answers},
        {"caption": "Use it", "chapters": use},
        {"caption": title, "chapters": [entry(OVERVIEW, [*ran, *(IMAGES if own else ())])]},
        {
            "caption": "Reference",
            "chapters": [entry(n) for n in (*REFERENCE, *(() if own else IMAGES))],
        },
    ]
    toc = {"format": "jb-book", "root": "intro", "parts": parts}
    (book / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))


def entry(file: str, behind: Sequence[str | dict[str, Any]] = ()) -> dict[str, Any]:
    """Make a page's entry of the contents, with the pages that its own entry opens."""
    sections = [entry(each) if isinstance(each, str) else each for each in behind]
    return {"file": file, "sections": sections} if sections else {"file": file}


def link(overview: Path, files: Sequence[str]) -> None:
    """Put links to the pages behind it on top of the overview."""
    notebook = nbformat.read(overview, as_version=4)
    links = "".join(f"- [](/{file})\n" for file in files)
    cell = nbformat.v4.new_markdown_cell(
        f"Each classifier has a page, with its notebooks:\n\n{links}"
    )
    notebook.cells.insert(1, cell)
    nbformat.write(notebook, overview)


def write_photographs(results: Path, book: Path) -> list[str]:
    """Write the pages on committed scores; return the names of the classifiers' pages."""
    shutil.copytree(COMMITTED / "summary", book / SUMMARY, ignore=shutil.ignore_patterns(".*"))
    for name, text in (
        ("answer", chapters.answer_table(COMMITTED)),
        ("lengths", chapters.lengths_table(COMMITTED)),
        ("costs-shown", chapters.costs_table(COMMITTED)),
        ("saturation", trials.saturation_table(COMMITTED)),
        ("classes", trials.classes_table(COMMITTED, OTHERS)),
        ("longer", trials.longer_table(COMMITTED)),
        ("against-rise", trials.rise_table(COMMITTED)),
        ("explored", trials.explored_table(EXPLORED)),
    ):
        (book / f"{name}.md").write_text(text)
    judged = {"on photographs": COMMITTED}
    if results.name != COMMITTED.name:
        judged[f"in {results.name}"] = results
    (book / "claims.md").write_text(chapters.claims_page(judged))
    names = []
    for backbone in chapters.backbones_of(COMMITTED):
        names.append(f"photographs-{backbone}")
        text = chapters.classifier_page(COMMITTED, backbone)
        (book / f"{names[-1]}.md").write_text(text)
    return names


def executed(folder: Path) -> list[str]:
    """Names of the notebooks that have run into a folder, in their order."""
    names = sorted(file.stem for file in NOTEBOOKS.glob("*.ipynb"))
    kinds = (".ipynb", ".json")
    return [name for name in names if all((folder / f"{name}{kind}").is_file() for kind in kinds)]


def page(folder: Path, target: Path, published: boxes.Repository) -> dict[str, Any]:
    """Copy an executed notebook as a page: hide the plumbing, say how to make it again.

    ``published`` is where the project is, for links to it.

    Returns
    -------
    dict
        The run's manifest, with the page's name as ``page``.
    """
    name = target.stem
    notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
    # the text may have changed since: a change that computes nothing runs nothing again
    latest = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    texts = {cell.id: cell.source for cell in latest.cells if cell.cell_type == "markdown"}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = texts.get(cell.id, cell.source)
    manifest = json.loads((folder / f"{name}.json").read_text())
    notebook.metadata.pop("widgets", None)  # the state of controls, which no page shows
    captions = {cell.id for cell in latest.cells if "caption" in cell.metadata.get("tags", [])}
    for cell, following in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        tags = set(cell.metadata.get("tags", []))
        outputs = cell.get("outputs", [])
        if tags & HIDDEN or cell.source.strip() == LAST:
            tags.add("remove-cell")
        elif cell.cell_type == "code":
            tags.add("hide-input")
        if rows := max((rows_of(output) for output in outputs), default=0):
            tags.add("full-width")
        if rows > MOST_ROWS:  # behind one fold with its code
            tags = tags - {"hide-input"} | {"hide-cell"}
            cell.metadata["mystnb"] = {
                "code_prompt_show": f"show the table, {rows} rows, and its code"
            }
        if tags:
            cell.metadata["tags"] = sorted(tags)
        if outputs:
            cell.outputs = [o for o in outputs if not o.get("metadata", {}).get("progress")]
            for output in cell.outputs:
                lighten(output.get("data", {}))
        if following and following.id in captions:
            caption, _, rest = following.source.partition("\n\n")
            if not any(map(shows, cell.get("outputs", [{}]))):  # this edition has none
                following.source = rest
            else:  # the figure's text for who cannot see it
                alt = caption.replace("*", "").replace("\n", " ")
                cell.metadata.setdefault("mystnb", {})["image"] = {"alt": alt}
    if "backbone" in manifest["parameters"]:
        first = notebook.cells[0]
        first.source = titled(first.source, shown_name(manifest["parameters"]["backbone"]))
    target.parent.mkdir(parents=True, exist_ok=True)
    book, files = find_book(target), []
    for file in (output for output in manifest["outputs"] if Path(output).suffix in boxes.KINDS):
        copy = target.with_name(f"{name}-{Path(file).name}")
        shutil.copy(folder / file, copy)
        files.append(copy.relative_to(book).as_posix())
    place = target.relative_to(book).with_suffix("").as_posix()
    box = nbformat.v4.new_markdown_cell(boxes.notebook_box(manifest, files, place, published))
    box.metadata["tags"] = ["reproduce"]
    notebook.cells[1:1] = [box, installing(published)]
    nbformat.write(notebook, target)
    return {**manifest, "page": place}


def titled(text: str, of_what: str) -> str:
    """Put what a page is of in front of its title: ``# Small ViT: how many steps?``."""
    title, end, rest = text.removeprefix("# ").partition("\n")
    if not title[:2].isupper():  # no abbreviation
        title = title[:1].lower() + title[1:]
    return f"# {of_what}{',' if ': ' in title else ':'} {title}{end}{rest}"


def rows_of(output: dict[str, Any]) -> int:
    """Count the rows of a table that a cell has shown, its head's too; 0 where it shows none."""
    return str(output.get("data", {}).get("text/html", "")).count("<tr")


def shows(output: dict[str, Any]) -> bool:
    """Tell what is shown from what is printed."""
    return output.get("output_type") != "stream"


def installing(published: boxes.Repository) -> Any:
    """Make the cell with which a notebook runs wherever it is downloaded to; no page shows it."""
    cell = nbformat.v4.new_code_cell(boxes.install_line(published), id="install")
    cell.metadata["tags"] = ["remove-cell"]
    return cell


def write_sources(folder: Path, published: boxes.Repository) -> None:
    """Write the notebooks as they are before they run, to be downloaded."""
    folder.mkdir()
    for file in sorted(NOTEBOOKS.glob("[!.]*.ipynb")):
        notebook = nbformat.read(file, as_version=4)
        notebook.cells.insert(1, installing(published))
        nbformat.write(notebook, folder / file.name)


def add_boxes(again: str, book: Path, published: boxes.Repository) -> None:
    """Put the box to the pages that are no notebooks and show figures or data.

    ``again`` is the command that makes the book.
    """
    anew = "downloads Imagenette, or takes `DATA=/path/to/photographs` behind it, and scores anew"
    told = f"It writes this page from the committed scores. `{MEASURE}` {anew} first."
    if again.startswith(MEASURE):
        told = f"It {anew}, and writes this page from that. [](record.md) says what was committed."
    for name, (data, notebooks) in SCORES.items():
        files = [f"{SUMMARY}/{file}" for file in (*data, "manifests.json")]
        for place in sorted(book.glob(f"{name}.md")):
            boxes.add_box(place, again, told, files, notebooks, published)
    for name, (own, text, listed) in LISTS.items():
        command = f"{boxes.ENTER}{own}" if own else again
        boxes.add_box(book / f"{name}.md", command, text, listed, (), published)
    for place in sorted(book.glob("*/index.md")):
        offered = [f"{OVERVIEW}-means.csv", f"{OVERVIEW}-differences.csv"]
        text = "It runs the edition's notebooks for every classifier, and makes the book of them."
        boxes.add_box(place, again, text, offered, ("04_evaluate", OVERVIEW), published)


def lighten(data: dict[str, Any]) -> None:
    """Put a picture that is much smaller as JPEG, as photographs are, in the place of its PNG.

    Others, as charts are, keep 256 colours.
    """
    if "image/png" not in data:
        return
    png, jpeg, few = base64.b64decode(data["image/png"]), io.BytesIO(), io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.save(jpeg, "JPEG", quality=90, optimize=True)
    if 2 * jpeg.tell() < len(png):
        del data["image/png"]
        data["image/jpeg"] = base64.b64encode(jpeg.getvalue()).decode()
        return
    picture.quantize(256, dither=Image.Dither.NONE).save(few, "PNG", optimize=True)
    if few.tell() < len(png):
        data["image/png"] = base64.b64encode(few.getvalue()).decode()


def find_book(target: Path) -> Path:
    """Return the book's folder, the one called ``book`` above a page."""
    return next(parent for parent in target.parents if parent.name == "book")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
