"""The paper's ablations (Tables VI, VII), other seeds, the released code's departures, what goes beyond; the grid search."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pandas as pd

from ttame_core.attention import VARIANTS
from ttame_core.backbones import Backbone
from ttame_core.configuration import TRAINED
from ttame_core.editions import Edition
from ttame_core.errors import NotServedError
from ttame_core.explainer import TTAME
from ttame_core.masking import ORDERS
from ttame_core.progress import Tell
from ttame_core.taps import TAPS, attention_norms
from ttame_core.training import Recipe, initialise


@dataclass(frozen=True)
class Ablation:
    """A way to train or evaluate that departs from the proposed one in the parts it names.

    Attributes
    ----------
    table : {"VI", "VII", "seeds", "released", "beyond"}
        Where the paper, or the book, shows it.
    label : str
        What it is called there.
    variant : str
        Of the attention mechanism.
    taps : str or list of str, optional
        Set of taps, or the layers; the edition's by default.
    masking : str, optional
        Masking order in training and evaluation; the family's by default.
    evaluated_with : str, optional
        Masking order in evaluation alone.
    changes : dict
        Of the recipe.
    seed : int
        Added to the edition's.
    method : str
        Key of `TRAINED` that gives the recipe and, where it has its own, taps.
    """

    table: str
    label: str
    variant: str = "proposed"
    taps: Any = None
    masking: str | None = None
    evaluated_with: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    method: str = "t-tame"

    @property
    def name(self) -> str:
        """A name for files."""
        return f"{self.table}-{self.label}".replace(" ", "_").replace(",", "").replace("/", "-")


LABELS = {
    "proposed": "proposed",
    "no_skip": "no skip",
    "no_skip_no_batch_norm": "no skip, no batch norm",
    "sigmoid": "sigmoid in the branch",
    "two_taps": "two layers",
    "one_tap": "one layer",
}
"""The rows of Table VI in words."""


def ablations(backbone: Backbone, recipe: Recipe, seeds: Iterable[int] = ()) -> list[Ablation]:
    """List the ablations of a backbone: Tables VI and VII, other seeds, and the released code's departures.

    Parameters
    ----------
    backbone : Backbone
        As the edition has it.
    recipe : Recipe
        Of the proposed method.
    seeds : iterable of int
        Further training seeds of the proposed method.

    Returns
    -------
    list of Ablation
        For a VGG Table VI has both sets of taps; where an edition taps other layers than the default ones it has the
        proposed method at those too.
    """
    sets = TAPS.get(backbone.name, {})
    listed = []
    of_paper = "max-pool" in sets  # a VGG
    for taps in sets if of_paper else [None]:
        named = f", {taps} taps" if taps else ""
        listed += [
            Ablation("VI", f"{LABELS[variant]}{named}", variant, taps)
            for variant in VARIANTS
            if variant in LABELS
        ]
    listed += [
        Ablation("VI", f"proposed, at {', '.join(layers)}", taps=name)
        for name, layers in sets.items()
        if not of_paper and layers != backbone.taps
    ]
    other = next(order for order in ORDERS if order != backbone.masking)
    listed.append(Ablation("VII", "matched", masking=backbone.masking))
    listed.append(Ablation("VII", "mismatched", masking=other))
    listed += [Ablation("seeds", f"seed {seed}", seed=seed) for seed in (0, *seeds)]
    listed.append(Ablation("released", "as in the paper"))
    rough = replace(recipe.loss, released_variation=True)
    listed.append(Ablation("released", "variation term", changes={"loss": rough}))
    drawn = "in-batch" if recipe.other_classes == "uniform" else "uniform"
    listed.append(Ablation("released", f"{drawn} classes", changes={"other_classes": drawn}))
    listed.append(Ablation("released", "train-mode backbone", changes={"backbone_mode": "train"}))
    if backbone.tokens:
        with suppress(NotServedError):  # its taps are no blocks with norms
            norms = list(attention_norms(backbone.model, backbone.taps))
            listed.append(Ablation("released", "taps at the norms", taps=norms))
        listed.append(Ablation("released", "raw masks in evaluation", evaluated_with="image"))
    return listed


def beyond(edition: Edition, backbone: Backbone) -> list[Ablation]:
    """List what goes beyond the paper, one part at a time, where the edition compares any of it.

    Parameters
    ----------
    edition : Edition
        Its methods and their recipes.
    backbone : Backbone
        As the edition loaded it.

    Returns
    -------
    list of Ablation
        The paper's recipe, each variant, and the matched ones with one part of theirs as in the paper, or left out.
    """
    compared = edition.config["evaluate"]["methods"]
    variants = {}
    for method in (name for name in TRAINED if name.startswith("t-tame-")):
        if method not in compared:
            continue
        try:
            variants[method] = edition.training(backbone, method=method).variant
        except NotServedError:
            continue
    listed = [Ablation("beyond", "the paper's recipe")]
    listed += [Ablation("beyond", name, v, method=name) for name, v in variants.items()]
    weights = edition.recipe(backbone.name).loss
    for method in (name for name in variants if name.endswith("matched")):
        name = method.removeprefix("t-tame-")
        row = partial(Ablation, "beyond", variant=variants[method], method=method)
        listed.append(row(label=f"{name}, sigmoid masks", changes={"mask": "sigmoid"}))
        listed.append(row(label=f"{name}, the paper's weights", changes={"loss": weights}))
        if method == "t-tame-warm-matched":
            listed.append(row(label=f"{name}, random start", changes={"start": "random"}))
            listed.append(row(label=f"{name}, explained without sigmoid", variant="scaled"))
        elif backbone.tokens:
            norms = list(attention_norms(backbone.model, backbone.taps))
            listed.append(row(label=f"{name}, last blocks", taps=norms))
            listed.append(row(label=f"{name}, outputs of the blocks", taps="spread"))
            listed.append(row(label=f"{name}, no smoothing", variant="scaled"))
    return listed if len(listed) > 1 else []


def by_taps(scores: pd.DataFrame) -> pd.DataFrame:
    """Move the set of taps from a row's name to its backbone's, for tables that rank within each."""
    parts = scores["method"].str.extract(r"^(.*?)(, [^,]* taps)?$")
    return scores.assign(method=parts[0], backbone=scores["backbone"] + parts[1].fillna(""))


def study_recipe(edition: Edition, name: str, recipe: Recipe | None = None) -> Recipe:
    """Return a backbone's recipe, or another, with no more steps than the edition gives its ablations."""
    recipe = recipe or edition.recipe(name)
    return replace(recipe, steps=min(recipe.steps, edition.config["ablate"]["steps"]))


def grid(edition: Edition, name: str) -> list[Recipe]:
    """List the recipes of the grid search: learning rates by steps, the edition's own among them; the rest as it has it."""
    settings = {**edition.config["tune"], **edition.entry(name).get("tune", {})}
    recipe = edition.recipe(name)
    rates = sorted({*settings["max_lr"], recipe.max_lr})
    lengths = sorted({*settings["steps"], recipe.steps})
    return [replace(recipe, max_lr=rate, steps=steps) for steps in lengths for rate in rates]


def training_lengths(
    edition: Edition, backbone: Backbone, progress: Callable[[str], Tell] | None = None
) -> Iterator[tuple[str, int, TTAME]]:
    """Train each kind of T-TAME for its own number of steps and for those that the edition lists.

    Parameters
    ----------
    edition : Edition
        Its ``converge`` lists the steps.
    backbone : Backbone
        As the edition loaded it.
    progress : callable, optional
        Takes what is being done, and returns what is called with (steps done, steps in all).

    Yields
    ------
    tuple of str, int and TTAME
        Method, steps and explainer; first what each starts from, after 0 steps. One that cannot serve the
        backbone is left out.
    """
    for method in (name for name in TRAINED if name.startswith("t-tame")):
        try:
            full = edition.training(backbone, method=method)
        except NotServedError:
            continue
        untrained = TTAME(full.backbone, full.variant, seed=full.seed).eval()
        initialise(untrained, full.images(), full.recipe)
        yield method, 0, untrained
        for steps in sorted({*edition.config["converge"]["steps"], full.recipe.steps}):
            name = f"{method},steps={steps}"
            recipe = replace(full.recipe, steps=steps)
            training = edition.training(full.backbone, full.variant, recipe=recipe, name=name)
            tell = progress(name) if progress else None
            yield method, steps, training.explainer([full.file], tell)


def ablate(
    edition: Edition,
    name: str,
    ablation: Ablation,
    progress: Tell | None = None,
) -> TTAME:
    """Train or load an ablation of a backbone, ready for evaluation.

    Parameters
    ----------
    edition : Edition
        Gives classifier, images and recipe.
    name : str
        Of the backbone.
    ablation : Ablation
        From `ablations`.
    progress : callable, optional
        Called with (steps done, steps in all) while training.

    Returns
    -------
    TTAME
    """
    backbone = edition.backbone(name, masking=ablation.masking)
    of_method = edition.training(backbone, method=ablation.method)
    recipe = replace(study_recipe(edition, name, of_method.recipe), **ablation.changes)
    backbone = backbone.with_taps(ablation.taps) if ablation.taps else of_method.backbone
    training = edition.training(
        backbone, ablation.variant, recipe=recipe, seed=ablation.seed, name=ablation.name
    )
    same = sorted(training.file.parent.glob("*.safetensors"))  # "proposed" goes by several names
    explainer = training.explainer(same, progress)
    if ablation.evaluated_with:
        backbone.masking = ablation.evaluated_with
    return explainer
