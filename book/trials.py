"""Tables of the appendix on trials: how trainings end, and classes that were left out of them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from chapters import plain, records, settings, table, with_half
from summaries import LONGER, against_rise, backbones_of, with_rise

from ttame_book.report.answers import against, counts, listed, rows_of
from ttame_book.report.intervals import averages, means_table, paired_differences
from ttame_book.report.names import shown_name
from ttame_book.report.tables import outcomes
from ttame_book.studies.ablations import PARTED, Shown
from ttame_core.metrics.measures import MASKING
from ttame_core.recipes import OURS, Recipe

ENDING = 30  # steps of a training that are its end
SATURATION = {
    "truth_mean": "mean of the map",
    "truth_spread": "spread over the map",
    "logits_max": "largest value before the sigmoid, any map",
}
PARTS = {
    "sigmoid masks": "scaled masks",
    "the paper's weights": "a heavier area term",
    "random start": "a warm start",
    "explained without sigmoid": "the sigmoid in explanation",
    "last blocks": "blocks over the depth",
    "outputs of the blocks": "norms",
    "no smoothing": "smoothing",
}
"""What a variant has that its row in the ablations lacks."""
METHOD = "t-tame-top"
VARIANTS = ("t-tame-rise", "t-tame")  # shown beside it
RIVALS = ("grad-cam", "attention-rollout")
COLUMNS = {("ad", 50): "AD(50) ↓", ("ad", 15): "AD(15) ↓", ("mean lerf", 0): "LeRF ↑"}
AMORTISED = "t-tame-rise"
ROAD = {"mean morf": "MoRF", "mean lerf": "LeRF"}
EXPLORED = {
    ("ad", 50): "AD(50) ↓",
    ("ad", 15): "AD(15) ↓",
    ("ic", 50): "IC(50) ↑",
    ("ic", 15): "IC(15) ↑",
}


def saturation_table(folder: Path) -> str:
    """Write how saturated the maps of the paper's recipe end, a row for each classifier."""
    rows = []
    for backbone in backbones_of(folder):
        end = pd.read_csv(folder / backbone / "training.csv").tail(ENDING)[list(SATURATION)].mean()
        mean, spread, largest = end
        rows.append([shown_name(backbone), f"{mean:.2f}", f"{spread:.2f}", f"{largest:,.0f}"])
    return table(["", *SATURATION.values()], rows)


def rise_table(folder: Path) -> str:
    """Write how each T-TAME of each classifier compares with RISE in AD and IC."""
    rows = []
    for backbone in backbones_of(folder):
        for method, edition in (*((method, "") for method in OURS), (METHOD, LONGER)):
            if len(found := with_rise(folder, backbone, method, edition)):
                told = (
                    against_rise(folder, backbone, method, *column, edition) for column in EXPLORED
                )
                cells = [cell.partition(", n")[0] for cell in told]
                name = shown_name(method) + (", trained longer" if edition else "")
                rows.append([shown_name(backbone), name, *cells, f"{found['n'].max()}"])
    return table(["classifier", "method", *EXPLORED.values(), "photographs"], rows)


def rise_counts(folder: Path) -> str:
    """Count how top masks compare with RISE in what `rise_table` shows, and say where worse.

    They are those trained longer, where a classifier has such.
    """
    rows = []
    for backbone in backbones_of(folder):
        longer, own = (with_rise(folder, backbone, METHOD, edition) for edition in (LONGER, ""))
        pairs = longer if len(longer) else own
        if len(pairs):
            rows += [rows_of(pairs, backbone, METHOD, *column) for column in EXPLORED]
    if not rows:
        return "not compared"
    found = pd.concat(rows)
    behind = [
        f"{row['measure'][:-2]} on {shown_name(row['backbone'])}"
        for row in records(found[found["outcome"] == "worse"])
    ]
    return counts(found) + (f" ({listed(behind)})" if behind else "")


def longer_table(folder: Path) -> str:
    """Write AD and IC of an edition's top masks and of those trained longer, side by side.

    The photographs are those that both explain; the tests are corrected for a classifier's row.
    """
    rows = []
    for backbone, scores in longer_scores(folder).items():
        means = {(r["method"], r["measure"], r["v"]): r for r in records(means_table(scores))}
        for name, place in (("short", folder), ("long", folder.with_name(LONGER))):
            told = [with_half(means[name, *column]) for column in EXPLORED]
            steps = len(pd.read_csv(place / backbone / f"training-{METHOD}.csv"))
            rows.append([shown_name(backbone), f"{steps:,}", *told, ""])
        pairs = paired_differences(scores, ["long"])
        found = [rows_of(pairs, backbone, "long", *column).iloc[0] for column in EXPLORED]
        told = [against(row).partition(", n")[0] for row in found]
        rows.append([shown_name(backbone), "difference", *told, f"{found[0]['n']}"])
    return table(["classifier", "steps", *EXPLORED.values(), "photographs"], rows)


@cache
def longer_scores(folder: Path) -> dict[str, pd.DataFrame]:
    """Read what `longer_table` compares, by classifier: AD and IC of "short" and of "long"."""
    found = {}
    for backbone in backbones_of(folder):
        places = (folder / backbone, folder.with_name(LONGER) / backbone)
        if all((place / "scores.parquet").is_file() for place in places):
            both = (scores_of(place) for place in places)
            scores = pd.concat(
                s[s["method"] == METHOD].assign(method=name)
                for s, name in zip(both, ("short", "long"), strict=True)
            )
            scores = scores[
                [c in EXPLORED for c in zip(scores["measure"], scores["v"], strict=True)]
            ]
            of_both = scores.groupby("image_id")["method"].transform("nunique") == 2
            found[backbone] = scores[of_both]
    return found


def longer_facts(folder: Path) -> dict[str, str]:
    """Say what top masks gain by a longer training, and how they then stand."""
    gain, road = [], []
    for backbone, scores in longer_scores(folder).items():
        on = f"on {shown_name(backbone)}"
        pairs = paired_differences(scores, ["long"])
        gain.append(f"{on} {against(rows_of(pairs, backbone, 'long', 'ad', 50).iloc[0])}")
        place = folder.with_name(LONGER) / backbone
        if (place / "road.parquet").is_file():
            pairs = paired_differences(averages(pd.read_parquet(place / "road.parquet")), [METHOD])
            for measure in ROAD:
                rows = rows_of(pairs, backbone, METHOD, measure, 0)
                row = rows[rows["rival"] == RIVALS[0]].iloc[0]
                road.append(f"{ROAD[measure]} {on} {against(row)}")
    return {
        "against_rise": rise_counts(folder),
        "longer_gain": "; ".join(gain),
        "longer_road": "; ".join(road),
    }


def classes_table(seen: Path, unseen: Path) -> str:
    """Write the means of classes left out, those of the others, and the outcomes for top masks.

    ``seen`` and ``unseen`` are the results of the editions that have photographs of them; where a
    classifier's top masks were trained longer, those of classes seen are of that edition.
    """
    rows = []
    for backbone in backbones_of(seen):
        left_out = scores_of(unseen / backbone)
        longer = seen.with_name(LONGER) / backbone
        others = means_of(
            scores_of(longer if (longer / "scores.parquet").is_file() else seen / backbone)
        )
        means = means_of(left_out)
        for method in (METHOD, *VARIANTS, *RIVALS):
            if (method, "ad", 50) in means:
                told = {key: with_half(row) for key, row in means.items() if key[0] == method}
                told |= {
                    k: f"{v} ({others[k]['mean']:.1f})" for k, v in told.items() if k in others
                }
                outcomes_of = compared(left_out, method) if method in RIVALS else {}
                cells = [told.get((method, *column), "") for column in COLUMNS]
                outcome = ", ".join(f"{m} {outcome}" for m, outcome in outcomes_of.items())
                rows.append([shown_name(backbone), shown_name(method), *cells, outcome])
    return table(["classifier", "method", *COLUMNS.values(), "top masks against it"], rows)


def parts(folder: Path) -> str:
    """Say with which parts of a variant AD(50) is lower, higher, or no other, by paired tests."""
    found: dict[str, dict[str, list[str]]] = {"better": {}, "worse": {}, "level": {}}
    for backbone in backbones_of(folder):
        rows = pd.read_parquet(folder / backbone / "ablations.parquet")
        rows = rows[(rows["table"] == Shown.BEYOND) & (rows["measure"] == "ad") & (rows["v"] == 50)]
        for method, short in PARTED.items():
            own = rows[(rows["method"] == method) | rows["method"].str.startswith(f"{short}, ")]
            for row in records(outcomes(paired_differences(own, [method]))):
                part = PARTS[row["rival"].removeprefix(f"{short}, ")]
                on = found[row["outcome"]].setdefault(part, [])
                on.append(f"{plain(method)} on {shown_name(backbone)}")
    told = {
        word: listed([f"{part} ({listed(on)})" for part, on in found[word].items()])
        for word in ("better", "worse")
        if found[word]
    }
    rest = [part for part in found["level"] if part not in found["better"] | found["worse"]]
    sentences = [f"lower with {told['better']}" if "better" in told else ""]
    sentences += [f"higher with {told['worse']}" if "worse" in told else ""]
    sentences += [f"not shown to change with {listed(rest)}" if rest else ""]
    ran = settings(json.loads((folder / "summary" / "configuration.json").read_text()))
    joined = "; ".join(filter(None, sentences))
    return f"In trainings of {ran['ablation_steps']} steps, part by part, it is {joined}."


def sentence(unseen: Path) -> str:
    """Say how top masks compare on classes left out in each measure, on all classifiers."""
    found: dict[str, list[str]] = {}
    images: dict[str, int] = {}
    for file in sorted(unseen.glob("*/scores.parquet")):
        scores = scores_of(file.parent)
        of_each = scores.groupby(["measure", "v"], observed=True)["image_id"].nunique()
        images |= {
            n[:-2]: max(images.get(n[:-2], 0), of_each.get(c, 0)) for c, n in COLUMNS.items()
        }
        for rival in set(RIVALS) & set(scores["method"]):
            for measure, outcome in compared(scores, rival).items():
                found.setdefault(measure, []).append(outcome)
    most = max(images.values())
    told = [
        f"{m}{f', on {images[m]} of them,' if images[m] < most else ''} "
        f"{counts(pd.DataFrame({'outcome': found[m]}))}"
        for m in found
    ]
    return (
        f"On {most:,} photographs of classes left out of training, the top masks that "
        "ship, against Grad-CAM and attention rollout, counted by classifier and rival "
        f"where both were run: {'; '.join(told)}."
    )


def explored(folder: Path) -> dict[str, pd.DataFrame]:
    """Read AD and IC of each classifier whose trainings were also run by other recipes.

    ``method`` is then a method with what its recipe departs in, ``steps`` the training's length.
    """
    found = {}
    for file in sorted(folder.glob("*/convergence.parquet")):
        scores = pd.read_parquet(file)
        if "setting" in scores and (scores["setting"] != "").any():
            scores = scores[(scores["steps"] > 0) & scores["measure"].isin(["ad", "ic"])]
            names = scores["method"] + (", " + scores["setting"]).where(scores["setting"] != "", "")
            found[file.parent.name] = scores.assign(of=scores["method"], method=names)
    return found


def against_own(scores: pd.DataFrame) -> dict[tuple[str, int], str]:
    """Say of each training whether its AD(50) is better than amortised RISE's of as many steps."""
    of_one = scores[(scores["measure"] == "ad") & (scores["v"] == 50)]
    differences = paired_differences(of_one, [AMORTISED], ["backbone", "steps"])
    turned = {"better": "worse", "worse": "better", "level": "level"}
    found = records(outcomes(differences))
    return {(row["rival"], row["steps"]): turned[row["outcome"]] for row in found}


def explored_table(folder: Path) -> str:
    """Write AD and IC of amortised RISE by each setting, and whether it differs from its own."""
    rows = []
    for backbone, scores in explored(folder).items():
        means = means_table(scores, ["method", "steps"])
        keys = ["method", "steps", "measure", "v"]
        cells = {tuple(row[k] for k in keys): with_half(row) for row in records(means)}
        against = against_own(scores)
        trainings = scores[["method", "steps"]].drop_duplicates().itertuples(index=False)
        for method, steps in trainings:
            told = [cells[method, steps, *column] for column in EXPLORED]
            outcome = against.get((method, steps), "")
            rows.append([shown_name(backbone), shown_name(method), f"{steps:,}", *told, outcome])
    head = ["classifier", "training", "steps", *EXPLORED.values(), "AD(50) against its own setting"]
    return table(head, rows)


def explored_facts(folder: Path) -> dict[str, str]:
    """Say with which settings of amortised RISE AD(50) is lower, and what its own setting is."""
    told = []
    words = {"better": "lower with", "worse": "higher with", "level": "not shown to change with"}
    for backbone, scores in explored(folder).items():
        settings_of = scores[scores["of"] == AMORTISED].set_index("method")["setting"].to_dict()
        found: dict[int, dict[str, list[str]]] = {}
        for (method, steps), outcome in against_own(scores).items():
            if settings_of.get(method):
                of_length = found.setdefault(steps, {})
                of_length.setdefault(outcome, []).append(f"`{settings_of[method]}`")
        clauses = [
            f"after {steps} steps {', '.join(f'{words[o]} {listed(of[o])}' for o in words if o in of)}"
            for steps, of in sorted(found.items())
        ]
        on = f"{shown_name(backbone)} and {scores['image_id'].nunique()} validation photographs"
        told.append(f"On {on} AD(50) is {'; '.join(clauses)}.")
    own = Recipe()
    setting = f"{own.masks} masks an image of {own.cells} by {own.cells} cells"
    return {
        "explored": " ".join(told),
        "explored_own": f"{setting}, each of which shows with a probability of {own.p:g}",
        "explored_longer": longer(folder, "t-tame"),
        "explored_top": longer(folder, METHOD),
    }


def longer(folder: Path, method: str) -> str:
    """Compare a method's AD(50) after its longest and its shortest training."""
    told = []
    for backbone, scores in explored(folder).items():
        own = scores[(scores["method"] == method) & (scores["measure"] == "ad")]
        own = own[own["v"] == 50]
        if own["steps"].nunique() < 2:
            continue
        first, last = own["steps"].min(), own["steps"].max()
        ends = own[own["steps"].isin([first, last])]
        ends = ends.assign(method=ends["steps"].astype(str))
        for _, row in outcomes(paired_differences(ends, [str(last)])).iterrows():
            told.append(
                f"on {shown_name(backbone)} {last} steps are, against {first}, {against(row)}"
            )
    return "; ".join(told)


def scores_of(folder: Path) -> pd.DataFrame:
    """Read a classifier's AD, IC and, where they were measured, averages of its ROAD curves."""
    scores = pd.read_parquet(folder / "scores.parquet")
    parts = [scores[scores["measure"].isin(list(MASKING))]]
    if (road := folder / "road.parquet").is_file():
        parts.append(averages(pd.read_parquet(road)))
    return pd.concat(parts)


def means_of(scores: pd.DataFrame) -> dict[tuple[str, str, float], dict[str, Any]]:
    """Compute each shown method's means, by method, measure and v."""
    means = means_table(scores[scores["method"].isin([METHOD, *VARIANTS, *RIVALS])])
    return {(row["method"], row["measure"], row["v"]): row for row in records(means)}


def compared(scores: pd.DataFrame, rival: str) -> dict[str, str]:
    """Compare top masks with a rival in each measure, corrected for all comparisons: "better"."""
    differences = paired_differences(scores[~scores["method"].isin(VARIANTS)], [METHOD])
    found = differences.assign(outcome=outcomes(differences)["outcome"])
    of_rival = found[found["rival"] == rival].set_index(["measure", "v"])["outcome"].to_dict()
    return {n[:-2]: str(of_rival[c]) for c, n in COLUMNS.items() if c in of_rival}
