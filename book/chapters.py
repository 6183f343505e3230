"""Chapters whose sentences, tables and figures are made from scores, beside those of notebooks.

Numbers are never typed into a text: a page's ``{{ name }}`` is filled by `facts`.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from plots import FIGURES
from summaries import LONGER, against_rise, backbones_of, read_evidence, read_scores

from ttame_book.report.answers import best_variant, counts, listed, rows_of, standing
from ttame_book.report.claims import FAMILIES, VERDICTS
from ttame_book.report.intervals import paired_differences
from ttame_book.report.names import shown_name
from ttame_book.report.tables import outcomes
from ttame_book.report.verdicts import deciding_comparisons, in_numbers
from ttame_core.methods.registry import CONTROLS
from ttame_core.recipes import OURS

SEVERAL = (
    "none",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)


def facts(folder: Path) -> dict[str, str]:
    """Tell what the texts on an edition mention: verdicts, photographs, settings it ran with."""
    means, _ = read_scores(folder)
    verdicts = pd.read_csv(folder / "summary" / "claims.csv")["verdict"]
    keys = ("confirmed", "not_confirmed", "undecided", "not_applicable")
    found = {
        key: in_words(int((verdicts == word).sum()))
        for key, word in zip(keys, VERDICTS, strict=True)
    }
    found |= {"claims": in_words(len(verdicts)), "photographs": f"{int(means['n'].max()):,}"}
    found |= {f"{key}_first": value.capitalize() for key, value in found.items()}
    curves = pd.read_csv(folder / "summary" / "convergence.csv")
    found |= {"classifiers": in_words(len(backbones_of(folder)))}
    found |= {
        "validation": f"{int(curves['n'].max()):,}",
        "lengths_best": best_lengths(folder, curves),
    }
    found |= {"few": most(means, "rise", "ad"), "road": most(means, "t-tame", "mean morf")}
    left = int((verdicts == VERDICTS[-1]).sum())
    found |= {"rest": f", {in_words(left)} not applicable here" if left else ""}
    # not those of the file in config/, which may have changed since
    ran = json.loads((folder / "summary" / "configuration.json").read_text())
    amortised = [
        f"{against_rise(folder, name, 't-tame-rise')}, on {shown_name(name)}"
        for name in backbones_of(folder)
    ]
    found["amortised"] = "; ".join(amortised)
    found |= {"brightness": brightness(folder), "best": best_variants(best_on(folder), ran)}
    return found | settings(ran)


def most(means: pd.DataFrame, method: str, measure: str) -> str:
    """Say how many photographs a method's means of a measure are of, at most."""
    n = means[(means["method"] == method) & (means["measure"] == measure)]["n"]
    return f"{int(n.max()):,} of them" if len(n) else "none"


def settings(config: dict[str, Any]) -> dict[str, str]:
    """Tell an edition's settings that its texts mention: steps, masks, which stands for which."""
    stands = config.get("claims", {})
    return {
        "steps": f"{config['train']['steps']:,}",
        "batch": f"{config['train'].get('batch_size', 32)}",
        "ablation_steps": f"{config['ablate']['steps']:,}",
        "masks": f"{config['evaluate']['options']['rise']['masks']:,}",
        "stand_ins": listed(
            [f"{shown_name(name)} for {FAMILIES[family]}" for family, name in stands.items()]
        ),
    }


def steps_of(config: dict[str, Any], backbone: str, method: str) -> int:
    """Return for how many steps a configuration trains a method for a classifier."""
    own = config["backbones"][backbone]
    places = [own.get("trained", {}).get(method, {}), config.get("trained", {}).get(method, {})]
    places += [own.get("train", {}), config["train"]]
    return next(place["steps"] for place in places if "steps" in place)


def answer_table(folder: Path) -> str:
    """Write how T-TAME stands among its rivals, a row for each classifier."""
    means, differences = read_scores(folder)
    rows = []
    for backbone in backbones_of(folder):
        best = best_variant(means, backbone)
        places = [("t-tame", "ad", 50), (best, "ad", 50), (best, "ad", 15), (best, "mean morf", 0)]
        cells = [shown_name(backbone)]
        for method, measure, v in places:
            cells.append(counts(rows_of(differences, backbone, method, measure, v)))
        short, long = (against_rise(folder, backbone, best, edition=e) for e in ("", LONGER))
        rows.append([*cells, short, "" if long == "not compared" else long])
    head = [
        "classifier",
        "paper's recipe, AD(50)",
        "best variant, AD(50)",
        "best variant, AD(15)",
        "best variant, MoRF",
        "best variant against RISE, AD(50)",
        "the same, trained longer",
    ]
    return table(head, rows)


def brightness(folder: Path) -> str:
    """Say in AD(50) how T-TAME compares with the image's brightness, a control."""
    means, differences = read_scores(folder)
    place = (differences["measure"] == "ad") & (differences["v"] == 50)
    rows = differences[place & (differences["rival"] == "brightness")]
    if rows.empty:
        return "It is not compared."
    rows, told = outcomes(rows), []
    for method, name in (("t-tame", "the paper's recipe"), ("", "the best variant")):
        found: dict[str, list[str]] = {}
        for backbone in backbones_of(folder):
            own = method or best_variant(means, backbone)
            row = rows[(rows["backbone"] == backbone) & (rows["method"] == own)]
            for outcome in row["outcome"]:
                found.setdefault(str(outcome), []).append(shown_name(backbone))
        joint = {"better": "beats it", "level": "is level with it", "worse": "is behind it"}
        parts = [f"{joint[word]} on {listed(names)}" for word, names in found.items()]
        told += [f"{name} {listed(parts)}"] if parts else []
    return f"In AD(50) {'; '.join(told)}."


def table(head: list[str], rows: list[list[str]]) -> str:
    """Write a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def in_words(count: int) -> str:
    """Write a small number as a word."""
    return SEVERAL[count] if count < len(SEVERAL) else str(count)


def longest(curves: pd.DataFrame) -> pd.DataFrame:
    """Take each recipe's AD(50) after its longest training, a row for each classifier."""
    own = curves["method"].isin(OURS)  # RISE is beside them, and not trained
    curves = curves[own & (curves["measure"] == "ad") & (curves["v"] == 50)]
    return curves.sort_values("steps").groupby(["method", "backbone"], sort=False).tail(1)


def best_lengths(folder: Path, curves: pd.DataFrame) -> str:
    """Say which recipes have the least AD(50) after their longest training, or are level."""
    found: dict[str, list[str]] = {}
    for backbone, last in longest(curves).groupby("backbone", sort=False):
        steps = last.sort_values("mean").set_index("method")["steps"]
        scores = pd.read_parquet(folder / str(backbone) / "convergence.parquet")
        scores = scores[(scores["measure"] == "ad") & (scores["v"] == 50)]
        scores = scores[scores["steps"] == scores["method"].map(steps)]
        rivals = outcomes(paired_differences(scores, [steps.index[0]]))
        behind = set(rivals.loc[rivals["outcome"] != "level", "rival"])
        best = [method for method in steps.index if method not in behind]
        told = listed([f"*{plain(method)}*" for method in best])
        found.setdefault(told, []).append(shown_name(str(backbone)))
    return "; ".join(f"{best} on {listed(names)}" for best, names in found.items())


def best_on(folder: Path) -> dict[str, str]:
    """Find the variant that is best in AD(50) on each classifier."""
    means, _ = read_scores(folder)
    return {backbone: best_variant(means, backbone) for backbone in backbones_of(folder)}


def best_variants(best: dict[str, str], config: dict[str, Any]) -> str:
    """Name the variants that are best, with their steps and the classifiers they are best on."""
    found: dict[tuple[str, int], list[str]] = {}
    for backbone, method in best.items():
        kind = (method, steps_of(config, backbone, method))
        found.setdefault(kind, []).append(shown_name(backbone))
    told = [
        f"*{plain(method)}* (`{method}`), {steps:,} steps, on {listed(on)}"
        for (method, steps), on in found.items()
    ]
    return "; ".join(told)


def lengths_table(folder: Path) -> str:
    """Write each recipe's AD(50) after its longest training, on validation photographs."""
    curves = pd.read_csv(folder / "summary" / "convergence.csv")
    last = longest(curves)
    backbones = list(curves["backbone"].unique())
    rows = []
    for method in filter(OURS.__contains__, curves["method"].unique()):
        cells = [shown_name(method)]
        for backbone in backbones:
            found = last[(last["method"] == method) & (last["backbone"] == backbone)]
            cells.append("")
            for row in records(found):
                cells[-1] = f"{with_half(row)} after {row['steps']:,} steps"
        rows.append(cells)
    return table(["recipe", *map(shown_name, backbones)], rows)


SHOWN = ("grad-cam", "score-cam", "rise", "iia", "transformer-lrp", "attention-rollout")
"""Rivals whose rows are read first; those of the others are behind a fold."""
COLUMNS = {
    ("ad", 50): "AD(50) ↓",
    ("ad", 15): "AD(15) ↓",
    ("ic", 50): "IC(50) ↑",
    ("ic", 15): "IC(15) ↑",
    ("mean morf", 0): "MoRF ↓",
    ("mean lerf", 0): "LeRF ↑",
}


def classifier_page(folder: Path, backbone: str) -> str:
    """Write the page of one classifier's scores; its figures are those of `write_figures`."""
    means, differences = read_scores(folder)
    own = means[means["backbone"] == backbone]
    best = best_variant(means, backbone)
    found = {m: rows_of(differences, backbone, m, "ad", 50) for m in ("t-tame", best)}
    paper, variant = map(standing, found.values())
    told, recipe = (against_rise(folder, backbone, method) for method in (best, "t-tame"))
    ran = json.loads((folder / "summary" / "configuration.json").read_text())
    methods = list(own["method"].unique())
    first = [m for m in methods if m in ("t-tame", best, *SHOWN, *CONTROLS)]
    rest = [m for m in methods if m not in first]
    return (
        f"# {shown_name(backbone)} on photographs\n\n"
        f"**In AD(50) the paper's recipe is {paper}; the best variant, {plain(best)}, is {variant}.** "
        f"Against RISE, with {{{{ masks }}}} masks, the variant is {told}; the recipe is {recipe}.\n\n"
        f"```{{image}} {FIGURES}/forest-ad50-{backbone}.svg\n:alt: T-TAME's paired difference in AD(50) "
        f"to each rival, {shown_name(backbone)}\n```\n\n"
        "*Left of the line T-TAME is better; a filled mark is significant after correction.*\n\n"
        f"{scores_table(own, first)}\n"
        f"*Means over {int(own['n'].max())} photographs, or the n beside a method, ± half their 95 % "
        f"intervals; in per cent. MoRF and LeRF are of {most(own, 't-tame', 'mean morf')}. The last "
        "three rows know nothing of the classifier. Rows of another n are of other photographs: the "
        "figure compares on the same ones.*\n\n"
        f":::{{dropdown}} The other methods\n{scores_table(own, rest)}{otherwise(ran, backbone, rest)}:::\n\n"
        "## Maps\n\n"
        f"```{{image}} {FIGURES}/maps-{backbone}.jpg\n:alt: Photographs with the maps of the predicted "
        f"class by several methods, {shown_name(backbone)}\n```\n\n"
        "*Three photographs that may be shown; bright is what speaks for the class above. The "
        "[explorer](explorer.md) masks them by these maps.*\n\n"
        "## ROAD\n\n"
        f"```{{image}} {FIGURES}/road-{backbone}.svg\n:alt: Confidence over the share of pixels "
        f"imputed, for each method, {shown_name(backbone)}\n```\n\n"
        "*On the left the most relevant pixels are imputed first: the best curve falls fastest. On "
        "the right the least relevant are: the best stays up longest. Grey are all other methods.*\n"
    )


def otherwise(config: dict[str, Any], backbone: str, methods: list[str]) -> str:
    """Tell of trained methods with another number of steps than the paper's recipe."""
    usual = steps_of(config, backbone, "t-tame")
    steps = {m: steps_of(config, backbone, m) for m in methods if m in OURS}
    told = [f"{shown_name(m)} was trained for {n} steps" for m, n in steps.items() if n != usual]
    return f"*{listed(told)}, the others for {usual}.*\n" if told else ""


def scores_table(means: pd.DataFrame, methods: list[str]) -> str:
    """Write the means of some methods with half their intervals, a row for each method."""
    cells = {(row["method"], row["measure"], row["v"]): with_half(row) for row in records(means)}
    images = means[(means["measure"] == "ad") & (means["v"] == 50)].set_index("method")["n"]
    rows = []
    for method in methods:
        n = images.get(method, 0)  # 0 for one of ROAD alone
        fewer = f" (n = {n:,})" if 0 < n < images.max() else ""
        row = [cells.get((method, *column), "") for column in COLUMNS]
        rows.append([f"{shown_name(method)}{fewer}", *row])
    return table(["method", *COLUMNS.values()], rows)


def costs_table(folder: Path) -> str:
    """Write what an explanation takes, a row for each method that is read first."""
    costs = pd.read_csv(folder / "summary" / "costs.csv")
    backbones = list(costs["backbone"].unique())
    cells = {
        (row["method"], row["backbone"]): f"{row['milliseconds']:,.0f} ms · "
        f"{row['forwards'] + row['backwards']:,.0f}"
        for row in records(costs)
    }
    rows = [
        [shown_name(method), *(cells.get((method, backbone), "") for backbone in backbones)]
        for method in ("t-tame", *SHOWN)
    ]
    return table(["time · passes", *map(shown_name, backbones)], rows)


def plain(method: str) -> str:
    """Say a variant of T-TAME where it is clear that it is one: ``matched masks``."""
    return shown_name(method).removeprefix(f"{shown_name('t-tame')}, ")


def claims_page(folders: dict[str, Path]) -> str:
    """Write the page of the paper's claims; ``folders`` are editions' results, by what they are."""
    editions = list(folders)
    verdicts = {e: pd.read_csv(place / "summary" / "claims.csv") for e, place in folders.items()}
    decided = {e: deciding_comparisons(read_evidence(place)) for e, place in folders.items()}
    first = verdicts[editions[0]].set_index("number")
    rows = []
    for number in first.index:
        told = [verdicts[e].set_index("number").loc[number, "verdict"] for e in editions]
        rows.append([str(number), *told, first.loc[number, "claim"]])
    details = "".join(
        f"\n## {edition[0].upper()}{edition[1:]}\n\n"
        + table(
            ["claim", "as claimed", "otherwise", "undecided", "decided by"],
            [
                [
                    str(row["number"]),
                    *(str(row[way]) for way in ("as claimed", "otherwise", "undecided")),
                    in_numbers(by) if isinstance(by["left"], str) else "",
                ]
                for row, by in zip(
                    records(verdicts[edition]), records(decided[edition]), strict=True
                )
            ],
        )
        for edition in editions
    )
    counts = verdicts[editions[0]]["verdict"].value_counts()
    summed = ", ".join(f"{count} {word}" for word, count in counts.items())
    return (
        f"# The twelve claims\n\n**The paper's recipe {editions[0]}: {summed}.** Each claim is a list of "
        "comparisons, image by image. It is confirmed where all of them come out as claimed, not "
        "confirmed where one comes out otherwise, and undecided where neither holds "
        "([](measures.md)). The stand-ins on photographs are {{ stand_ins }}. RISE has {{ masks }} masks there, and "
        "claims 7 to 9 rest on trainings of {{ ablation_steps }} steps.\n\n"
        f"{table(['claim', *editions, 'the paper says'], rows)}\n"
        f"```{{image}} {FIGURES}/verdicts.svg\n:alt: The verdict on each claim, with the comparison that "
        "decides it and its interval\n```\n\n"
        "*The comparison that decides each claim on photographs, in points from the claim's bound: right "
        "of 0 is as claimed. The intervals of a claim hold for all its comparisons at once, so they are "
        "wider than elsewhere. Correlations and counts have numbers alone. The tables below count "
        "how the comparisons came out.*\n"
        f"{details}"
    )


def folder_page(results: Path, backbone: str, notebooks: list[str]) -> str:
    """Write the page in front of a classifier's notebooks: how T-TAME stands, and links."""
    means, differences = read_scores(results)
    own = means[means["backbone"] == backbone]
    links = "".join(f"- [](/{backbone}/{name})\n" for name in notebooks)
    if own.empty:
        answer = "**Too few test images for scores: maps, and what they cost.**"
        return f"# {shown_name(backbone)}\n\n{answer}\n\n{links}"
    found = standing(rows_of(differences, backbone, "t-tame", "ad", 50))
    methods = list(own["method"].unique())
    return (
        f"# {shown_name(backbone)}\n\n**In AD(50) T-TAME is {found}.**\n\n{scores_table(own, methods)}\n"
        f"*Means over {int(own['n'].max())} images, or as many as a method explained, ± half their "
        "95 % intervals; in per cent.*\n\n"
        f"The notebooks, as they ran:\n\n{links}"
    )


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows as dictionaries."""
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]


def with_half(row: dict[str, Any]) -> str:
    """Write a mean with half its interval."""
    return f"{row['mean']:.1f} ±{(row['high'] - row['low']) / 2:.1f}"
