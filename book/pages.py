"""Turn an edition's executed notebooks and the prose into the source folder of its book.

python book/pages.py results/demo "Title of the edition"
"""

import base64
import csv
import io
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import chapters
import nbformat
import pandas as pd
import yaml
from PIL import Image

from ttame_book.editions import counts, hours
from ttame_book.editions.configuration import Configuration
from ttame_book.editions.edition import Edition
from ttame_book.report import explorer
from ttame_core.errors import TTAMEError

PROSE = Path(__file__).parent
NOTEBOOKS = PROSE.parent / "notebooks"
COMMITTED = PROSE.parent / "results" / "imagenette"
SUMMARY = "imagenette-summary"  # its summary in the book
RATES = PROSE.parent / "benchmarks" / "results"
HIDDEN = {"parameters", "injected-parameters"}  # the box on top of the page has them
REFERENCE = (
    *("measures", "methods", "images", "contents", "situations", "families", "costs"),
    *("provenance", "glossary", "bibliography", "cite"),
)
APPENDIX = ("record", "trials")  # how the numbers in COMMITTED came about
OVERVIEW, CLASSIFIERS = "12_compare", "02_backbones"
DOWNLOADS = {".csv", ".md", ".tex", ".svg", ".pdf"}  # outputs to download; pictures are on the page

PAPER = {
    "Tables II, III": ("AD and IC of every method", ["12_compare", "04_evaluate"]),
    "Tables IV, V": ("ROAD, averages", ["12_compare", "05_road"]),
    "Figures 8 to 13": ("ROAD, curves", ["12_compare", "05_road"]),
    "Table VI": ("parts of the attention mechanism", ["12_compare", "07_ablations"]),
    "Table VII": ("masking of the own and the other family", ["12_compare", "07_ablations"]),
    "Figure 4": ("noisy linear imputation", ["05_road"]),
    "Figure 14": ("T-TAME on every backbone", ["12_compare"]),
    "Figure 15": ("maps of all methods", ["06_qualitative"]),
    "Figure 16": ("randomised classifier and attention mechanism", ["10_sanity"]),
    "Figures 17, 18": ("other classes, several objects, mistakes", ["11_counterfactual"]),
    "Section IV-C": ("learning rate and length of training", ["08_hyperparameters"]),
    "Sections IV-D, V": (
        "passes, time and memory of every method",
        ["12_compare", "06_qualitative"],
    ),
    "The claims": ("a verdict on each", ["12_compare"]),
}
"""What the paper shows, and the notebooks that show it here."""
OF_ATTENTION = {"transformer-lrp", "attention-rollout"}
NO_PLAIN_VIT = "is no ViT with plain self-attention and a class token"
COUNTED = {
    "train": "trainings of T-TAME, and of L-CAM-Img where it serves",
    "evaluate": "maps of every method, and images masked by them",
    "road": "maps again, but for the costly; imputed and painted images",
    "qualitative": "some maps of every method, which are timed",
    "ablations": "trainings: Tables VI and VII, the released code's departures",
    "hyperparameters": "trainings: learning rates by numbers of steps",
    "convergence": "trainings: numbers of steps",
    "sanity": "maps, for each part that is randomised",
    "counterfactual": "maps of two classes, and images masked by them",
}
"""What is counted of each rule of the graph."""


def main(results: Path, title: str) -> None:
    """Write ``results/book`` anew: settings, table of contents, prose, pages."""
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
    write_families(PROSE / "families.csv", book)
    write_costs(RATES, book)
    real = write_photographs(results, book)
    config = yaml.safe_load((PROSE / "_config.yml").read_text())
    told = Configuration.read("imagenette", root=PROSE.parent).config
    config["parse"]["myst_substitutions"] = chapters.facts(COMMITTED) | chapters.settings(told)
    (book / "_config.yml").write_text(yaml.safe_dump(config, allow_unicode=True))

    manifests = [page(results, book / f"{OVERVIEW}.ipynb")]
    demo: list[dict[str, Any]] = [{"file": OVERVIEW}]
    if (results / "backbones" / f"{CLASSIFIERS}.ipynb").is_file():
        manifests.append(page(results / "backbones", book / "backbones" / f"{CLASSIFIERS}.ipynb"))
        demo.append({"file": f"backbones/{CLASSIFIERS}"})
    for folder in sorted(place for place in results.iterdir() if place.is_dir()):
        names = [] if folder.name in ("backbones", "book") else executed(folder)
        if not names:
            continue
        manifests += [page(folder, book / folder.name / f"{name}.ipynb") for name in names]
        sections = [{"file": f"{folder.name}/{name}"} for name in names]
        index = chapters.folder_page(results, folder.name, names)
        (book / folder.name / "index.md").write_text(index)
        demo.append({"file": f"{folder.name}/index", "sections": sections})
    own = [name for name in executed(results) if name != OVERVIEW]
    manifests += [page(results, book / f"{name}.ipynb") for name in own]
    (book / "provenance.md").write_text(provenance(manifests))
    (book / "contents.md").write_text(contents([manifest["page"] for manifest in manifests]))
    answers = [
        {"file": "method"},
        {"file": "photographs", "sections": [{"file": name} for name in real]},
        {"file": "claims"},
        {"file": "short-training"},
    ]
    if explorer.write_page(results, COMMITTED / "summary", book):
        answers.append({"file": "explorer"})
    use: list[dict[str, Any]] = [{"file": "use"}]
    if own:  # an empty list is none
        use[0]["sections"] = [{"file": name} for name in own]
    parts = [
        {"caption": "The answer", "chapters": answers},
        {"caption": "Use it", "chapters": [*use, {"file": "rerun"}, {"file": "beyond"}]},
        {"caption": title, "chapters": demo},
        {"caption": "Reference", "chapters": [{"file": f} for f in REFERENCE]},
        {"caption": "Appendix", "chapters": [{"file": f} for f in APPENDIX]},
    ]
    toc = {"format": "jb-book", "root": "intro", "parts": parts}
    (book / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))


def write_photographs(results: Path, book: Path) -> list[str]:
    """Write the pages on committed scores; return the names of the classifiers' pages."""
    shutil.copytree(COMMITTED / "summary", book / SUMMARY, ignore=shutil.ignore_patterns(".*"))
    chapters.write_figures(COMMITTED, book / chapters.FIGURES)
    chapters.write_drawing(book / chapters.FIGURES / "method.svg")
    for name, text in (
        ("answer", chapters.answer_table(COMMITTED)),
        ("lengths", chapters.lengths_table(COMMITTED)),
        ("costs-shown", chapters.costs_table(COMMITTED)),
    ):
        (book / f"{name}.md").write_text(text)
    verdicts = {"on photographs": pd.read_csv(COMMITTED / "summary" / "claims.csv")}
    if results.name != "imagenette":
        verdicts[f"in {results.name}"] = pd.read_csv(results / "summary" / "claims.csv")
    (book / "claims.md").write_text(chapters.claims_page(verdicts))
    names = []
    for backbone in chapters.backbones_of(COMMITTED):
        names.append(f"photographs-{backbone}")
        text = chapters.classifier_page(COMMITTED, backbone)
        (book / f"{names[-1]}.md").write_text(text)
    return names


def write_families(table: Path, book: Path) -> None:
    """Write the table of families as it is shown, and into its page how many are served."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (book / table.name).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("family, by its member", "taps", "maps", "what does not serve it"))
        for row in rows:
            member = f"{row['library']}: {row['member'].removeprefix('timm/')}"
            maps = ", ".join(dict.fromkeys(row["maps"].split(", ")))  # a ViT's are all alike
            writer.writerow((member, row["taps"], maps, reasons(row)))
    counts = []
    for library in dict.fromkeys(row["library"] for row in rows):
        served = [bool(row["served by"]) for row in rows if row["library"] == library]
        counts.append(f"{sum(served)} of {len(served)} of {library}")
    page = book / "families.md"
    page.write_text(page.read_text().replace("COUNTS", ", ".join(counts)))


def write_costs(rates: Path, book: Path) -> None:
    """Write what the paper's experiments take, with the hours on each GPU of the tables of rates.

    ``rates`` is the folder in which `benchmarks/gpu.py` has left its tables, if it has run.
    """
    edition = Edition.read("imagenet", root=PROSE.parent)
    works = counts.count(edition)
    table = counts.counted(works) / 1e6
    table["all"] = table.sum(axis=1)
    columns = {name: table[name].map("{:,.2f}".format) for name in table}
    total = table["all"].sum()
    told = []
    for file in sorted(rates.glob("*.json")):
        try:
            measured = hours.read_rates(file)
            spent = hours.hours(works, measured)
        except TTAMEError:  # another benchmark's, or one that was cut short
            continue
        if measured["device"] != "CPU":
            columns[f"hours on {measured['device']}"] = spent.map("{:,.1f}".format)
            told.append(f"{measured['device']} takes {spent.sum():,.0f} hours for them.")
            if guessed := hours.not_timed(works, measured):
                told.append(f"Not timed there, and taken for bare forwards: {', '.join(guessed)}.")
    with (book / "costs.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("rule", "what is counted", *columns))
        for rule in table.index:
            writer.writerow((rule, COUNTED[rule], *(column[rule] for column in columns.values())))
    trained = sum(work.forwards for work in works if work.kind == counts.STEP) / 1e6
    values = {"TOTAL": f"{total:,.0f}", "SHARE": f"{100 * trained / total:.0f}"}
    values["HOURS"] = " ".join(told) or "How many hours that is has not been measured on a GPU yet."
    page = book / "costs.md"
    page.write_text(re.sub("TOTAL|SHARE|HOURS", lambda found: values[found[0]], page.read_text()))


def reasons(row: dict[str, str]) -> str:
    """Say why methods do not serve a family, but for what the page says of all plain ViTs."""
    kept = []
    for reason in row["not by"].split("; "):
        names, _, why = reason.partition(": ")
        if why == f"{row['member']} {NO_PLAIN_VIT}":
            others = [name for name in names.split(", ") if name not in OF_ATTENTION]
            reason = f"{', '.join(others)}: no plain ViT" if others else ""
        kept += [reason] if reason else []
    return "; ".join(kept)


def executed(folder: Path) -> list[str]:
    """Names of the notebooks that have run into a folder, in their order."""
    names = sorted(file.stem for file in NOTEBOOKS.glob("*.ipynb"))
    kinds = (".ipynb", ".json")
    return [name for name in names if all((folder / f"{name}{kind}").is_file() for kind in kinds)]


def page(folder: Path, target: Path) -> dict[str, Any]:
    """Copy an executed notebook as a page: hide the plumbing, say how to make it again.

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
        cell.source = texts.get(cell.id, cell.source)
    manifest = json.loads((folder / f"{name}.json").read_text())
    captions = {cell.id for cell in latest.cells if "caption" in cell.metadata.get("tags", [])}
    for cell, following in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        tags = set(cell.metadata.get("tags", []))
        outputs = cell.get("outputs", [])
        if tags & HIDDEN:
            tags.add("remove-cell")
        elif cell.cell_type == "code":
            tags.add("hide-input")
        if any("<table" in str(o.get("data", {}).get("text/html")) for o in outputs):
            tags.add("full-width")
        if tags:
            cell.metadata["tags"] = sorted(tags)
        if outputs:
            cell.outputs = [o for o in outputs if not o.get("metadata", {}).get("progress")]
            for output in cell.outputs:
                lighten(output.get("data", {}))
        if following and following.id in captions:  # the figure's text for who cannot see it
            alt = following.source.split("\n\n")[0].replace("*", "").replace("\n", " ")
            cell.metadata["mystnb"] = {"image": {"alt": alt}}
    if "backbone" in manifest["parameters"]:
        first = notebook.cells[0]
        first.source = first.source.replace("\n", f": {manifest['parameters']['backbone']}\n", 1)
    target.parent.mkdir(parents=True, exist_ok=True)
    files = []
    for file in (output for output in manifest["outputs"] if Path(output).suffix in DOWNLOADS):
        copy = target.with_name(f"{name}-{Path(file).name}")
        shutil.copy(folder / file, copy)
        files.append(copy.name)
    box = nbformat.v4.new_markdown_cell(reproduce(manifest, files))
    box.metadata["tags"] = ["reproduce"]
    notebook.cells.insert(1, box)
    nbformat.write(notebook, target)
    return {**manifest, "page": target.relative_to(find_book(target)).with_suffix("").as_posix()}


def lighten(data: dict[str, Any]) -> None:
    """Put a picture that is much smaller as JPEG, as photographs are, in the place of its PNG."""
    if "image/png" not in data:
        return
    png, jpeg = base64.b64decode(data["image/png"]), io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(jpeg, "JPEG", quality=90, optimize=True)
    if 2 * jpeg.tell() < len(png):
        del data["image/png"]
        data["image/jpeg"] = base64.b64encode(jpeg.getvalue()).decode()


def find_book(target: Path) -> Path:
    """Return the book's folder, the one called ``book`` above a page."""
    return next(parent for parent in target.parents if parent.name == "book")


def reproduce(manifest: dict[str, Any], files: list[str]) -> str:
    """Write the box with the command, the parameters and the data of a page."""
    rows = "\n".join(f"| `{k}` | {code(v)} |" for k, v in manifest["parameters"].items())
    data = ""
    if files:
        data = "\nData and figures: " + ", ".join(f"{{download}}`{f} <{f}>`" for f in files) + "\n"
    command = manifest["command"]
    ticks, colons = fence("`", command), fence(":", command)
    return (
        f"{colons}{{admonition}} Reproduce this page\n:class: dropdown tip\n"
        f"{ticks}bash\n{command}\n{ticks}\n"
        f"Commit `{manifest['commit']}`, {manifest['seconds']:.0f} s on {runs_on(manifest)}.\n\n"
        f"| parameter | value |\n|---|---|\n{rows}\n\n"
        f"All other settings are those of `config/{manifest['edition']}.yaml`.\n{data}{colons}"
    )


def runs_on(manifest: dict[str, Any]) -> str:
    """Name a run's device and, where it loaded a classifier, in what precision that ran."""
    found = sorted(set(manifest.get("precision", {}).values()))  # older manifests have none
    return ", ".join([manifest["device"], *found])


def fence(mark: str, text: str, least: int = 3) -> str:
    """Return a row of marks that is longer than any in a text: nothing in it ends what it holds."""
    return mark * max(least, *(len(found) + 1 for found in re.findall(f"{mark}+", text)), least)


def code(value: Any) -> str:
    """Write a value as code in a cell of a table: no mark, tag or end of line in it counts."""
    text = " ".join(str(value).split()).replace("|", "\\|")
    ticks = fence("`", text, 1)
    return f"{ticks} {text} {ticks}" if "`" in text else f"`{text}`"


def contents(pages: list[str]) -> str:
    """Write the page that says where each table and figure of the paper is."""
    rows = []
    for item, (what, notebooks) in PAPER.items():
        places = []
        for name in notebooks:
            of_backbones = [p for p in pages if p.endswith(f"/{name}")]
            if name in pages:
                places.append(f"[overview](/{name})")
            places += [f"[{p.rpartition('/')[0]}](/{p})" for p in of_backbones]
        rows.append(f"| {item} | {what} | {', '.join(places)} |")
    return (
        "# The paper's tables and figures\n\nWhere each of them is in this book, computed for this edition's "
        "backbones.\n\n| paper | what | where |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def provenance(manifests: list[dict[str, Any]]) -> str:
    """Write the page that says which command, commit, device and versions made every page."""
    rows = "\n".join(
        f"| [](/{m['page']}) | {m['started'][:16].replace('T', ' ')} | {m['seconds']:.0f} | "
        f"{m['peak_memory_gb']} | {runs_on(m)} | {m['threads']} | {m['seed']} | `{m['commit']}` |"
        for m in manifests
    )
    packages = "\n".join(f"| {k} | {v} |" for k, v in manifests[0]["versions"].items())
    return (
        "# Provenance\n\nEvery page of this edition, and what made it. The command is in the box on top of "
        "the page. A `+` behind a commit: files differed from it.\n\n"
        "| page | started (UTC) | seconds | peak memory (GB) | device, precision | threads | seed | commit |\n"
        f"|---|---|---|---|---|---|---|---|\n{rows}\n\n## Versions\n\n| package | version |\n|---|---|\n"
        f"{packages}\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
