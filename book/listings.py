"""Pages that list: families, costs, the paper's tables and figures, what made every page."""

import csv
import re
from pathlib import Path
from typing import Any

import boxes

from ttame_book.editions import counts, hours
from ttame_book.editions.edition import Edition
from ttame_book.report.names import shown_name
from ttame_core.errors import TTAMEError

ROOT = Path(__file__).parents[1]
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
DAY = 24 * 3600
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
    edition = Edition.read("imagenet", root=ROOT)
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
    edition.config["ablate"]["steps"] //= 8
    shorter = sum(work.forwards for work in counts.count(edition))
    values |= {"RATE": f"{1e6 * total / DAY:,.0f}", "SHORT": f"{shorter / DAY:,.0f}"}
    values["EIGHTH"] = str(edition.config["ablate"]["steps"])
    page = book / "costs.md"
    page.write_text(re.sub("|".join(values), lambda found: values[found[0]], page.read_text()))


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


def contents(pages: list[str]) -> str:
    """Write the page that says where each table and figure of the paper is."""
    rows = []
    for item, (what, notebooks) in PAPER.items():
        places = []
        for name in notebooks:
            of_backbones = [p for p in pages if p.endswith(f"/{name}")]
            if name in pages:
                places.append(f"[overview](/{name})")
            places += [f"[{shown_name(p.rpartition('/')[0])}](/{p})" for p in of_backbones]
        rows.append(f"| {item} | {what} | {', '.join(places)} |")
    return (
        "# The paper's tables and figures\n\nWhere each of them is in this book, computed for this edition's "
        "backbones.\n\n| paper | what | where |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def provenance(manifests: list[dict[str, Any]]) -> str:
    """Write the page that says which command, commit, device and versions made every page."""
    rows = "\n".join(
        f"| [](/{m['page']}) | {m['started'][:16].replace('T', ' ')} | {m['seconds']:.0f} | "
        f"{m['peak_memory_gb']} | {boxes.runs_on(m)} | {m['threads']} | {m['seed']} | `{m['commit']}` |"
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
