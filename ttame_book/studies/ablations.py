"""The paper's ablations (Tables VI, VII), training seeds, the released code, and beyond."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any

import pandas as pd
from torchvision.models import VGG

from ttame_book.editions.edition import Edition
from ttame_book.editions.trained import Training, run_together
from ttame_core.classifiers.backbone import Backbone
from ttame_core.classifiers.loading import named_taps
from ttame_core.classifiers.taps import attention_norms
from ttame_core.errors import NotServedError
from ttame_core.explainer import TTAME
from ttame_core.progress import Tell
from ttame_core.recipes import ORDERS, TRAINED, Recipe


class Shown(StrEnum):
    """The tables that ablations are rows of: the paper's by their numbers, and the book's own."""

    PARTS = "VI"
    ORDERS = "VII"
    SEEDS = "seeds"
    RELEASED = "released"
    BEYOND = "beyond"
    WHOLE = "whole recipes"
    CONTROLS = "controls"  # rows that stand in every table


@dataclass(frozen=True)
class Ablation:
    """A way to train or evaluate that departs from the proposed one in the parts it names."""

    table: Shown
    label: str  # the row's name there
    variant: str = "proposed"
    taps: Any = None  # name of a set, or layers; the edition's by default
    masking: str | None = None  # order in training and evaluation; the family's by default
    evaluated_with: str | None = None  # order in evaluation alone
    changes: dict[str, Any] = field(default_factory=dict)  # fields of the recipe
    seed: int = 0  # added to the edition's
    method: str = "t-tame"  # key of TRAINED that gives the recipe and, where it has own ones, taps
    whole: bool = False  # all steps of its recipe, not the ablations' few
    named_taps: str = ""  # name of the set, where the table has several

    @property
    def name(self) -> str:
        """A name for files."""
        label = f"{self.label}, {self.named_taps} taps" if self.named_taps else self.label
        return f"{self.table}-{label}".replace(" ", "_").replace(",", "").replace("/", "-")


LABELS = {
    "proposed": "proposed",
    "no_skip": "no skip",
    "no_skip_no_batch_norm": "no skip, no batch norm",
    "sigmoid": "sigmoid in the branch",
    "two_taps": "two layers",
    "one_tap": "one layer",
}
"""The rows of Table VI, variants of the attention mechanism, in words."""
PARTED = {"t-tame-matched": "matched", "t-tame-warm-matched": "warm-matched"}
"""Methods beyond the paper with several parts, each left out in turn, and their short names."""
MATCHED, MISMATCHED = "matched", "mismatched"
"""The rows of Table VII: the masking order of the classifier's family, and the other one."""


def ablations(backbone: Backbone, recipe: Recipe, seeds: Iterable[int] = ()) -> list[Ablation]:
    """List a backbone's ablations: Tables VI, VII, training seeds, the released code's departures.

    ``recipe`` is the proposed method's, and ``seeds`` are training seeds beside 0. For a VGG Table
    VI has every named set of taps, as in the paper. Where an edition taps other layers than the
    default ones, it has the proposed method at those too.
    """
    sets = named_taps(backbone.name)
    both = isinstance(backbone.model, VGG) and len(sets) > 1
    rows = [
        Ablation(Shown.PARTS, label, variant, taps, named_taps=taps or "")
        for taps in (sets if both else [None])
        for variant, label in LABELS.items()
    ]
    rows += [
        Ablation(Shown.PARTS, f"proposed, at {', '.join(layers)}", taps=name)
        for name, layers in sets.items()
        if not both and layers != backbone.taps
    ]
    other = next(order for order in ORDERS if order != backbone.masking)
    rows.append(Ablation(Shown.ORDERS, MATCHED, masking=backbone.masking))
    rows.append(Ablation(Shown.ORDERS, MISMATCHED, masking=other))
    rows += [Ablation(Shown.SEEDS, f"seed {seed}", seed=seed) for seed in (0, *seeds)]
    released = partial(Ablation, Shown.RELEASED)
    rough = replace(recipe.loss, released_variation=True)
    drawn = "in-batch" if recipe.other_classes == "uniform" else "uniform"
    rows.append(released("as in the paper"))
    rows.append(released("variation term", changes={"loss": rough}))
    rows.append(released(f"{drawn} classes", changes={"other_classes": drawn}))
    rows.append(released("train-mode backbone", changes={"backbone_mode": "train"}))
    if backbone.tokens:
        with suppress(NotServedError):  # its taps are no blocks with norms
            norms = list(attention_norms(backbone.model, backbone.taps))
            rows.append(released("taps at the norms", taps=norms))
        rows.append(released("raw masks in evaluation", evaluated_with="image"))
    return rows


def beyond(edition: Edition, backbone: Backbone) -> list[Ablation]:
    """List what goes beyond the paper, one part at a time, where the edition compares any of it.

    These are the paper's recipe, each variant compared, and the matched ones with one of their
    parts as in the paper, or left out; and, of the methods that the edition names, the whole recipe
    by each seed.
    """
    compared = edition.config["evaluate"]["methods"]
    variants = {}
    for method, trained in TRAINED.items():
        if trained.kind == "beyond" and method in compared:
            with suppress(NotServedError):
                variants[method] = edition.training(backbone, method=method).variant
    rows = [Ablation(Shown.BEYOND, "the paper's recipe")] if variants else []
    rows += [Ablation(Shown.BEYOND, name, v, method=name) for name, v in variants.items()]
    settings = edition.config["ablate"]
    for method in settings.get("whole", ()):
        with suppress(NotServedError):
            variant = edition.training(backbone, method=method).variant
            row = partial(Ablation, Shown.WHOLE, variant=variant, method=method, whole=True)
            rows += [row(f"{method}, seed {n}", seed=n) for n in (0, *settings["seeds"])]
    weights = edition.recipe(backbone.name).loss
    for method, short in PARTED.items():
        if method not in variants:
            continue
        settings, variant = TRAINED[method].settings, variants[method]
        row = partial(Ablation, Shown.BEYOND, variant=variant, method=method)
        rows.append(row(label=f"{short}, sigmoid masks", changes={"mask": "sigmoid"}))
        rows.append(row(label=f"{short}, the paper's weights", changes={"loss": weights}))
        if settings.get("start") == "warm":
            rows.append(row(label=f"{short}, random start", changes={"start": "random"}))
            rows.append(row(label=f"{short}, explained without sigmoid", variant="scaled"))
        elif backbone.tokens:
            norms = list(attention_norms(backbone.model, backbone.taps))
            rows.append(row(label=f"{short}, last blocks", taps=norms))
            rows.append(row(label=f"{short}, outputs of the blocks", taps="spread"))
            rows.append(row(label=f"{short}, no smoothing", variant="scaled"))
    return rows


def mismatched(row: str) -> str:
    """Name a control's row that is measured by the other family's masking order."""
    return f"{row}, {MISMATCHED}"


def by_taps(scores: pd.DataFrame) -> pd.DataFrame:
    """Name a backbone's set of taps with it, for tables that rank within each set."""
    taps = scores.get("taps", pd.Series("", scores.index)).fillna("")
    named = scores["backbone"] + (", " + taps + " taps").where(taps != "", "")
    return scores.assign(backbone=named)


def study_recipe(edition: Edition, name: str, recipe: Recipe | None = None) -> Recipe:
    """Return a backbone's recipe, or another, with at most the steps of the edition's ablations."""
    recipe = recipe or edition.recipe(name)
    return replace(recipe, steps=min(recipe.steps, edition.config["ablate"]["steps"]))


def ablated(
    edition: Edition,
    name: str,
    listed: Sequence[Ablation],
    progress: Callable[[str], Tell] | None = None,
) -> list[TTAME]:
    """Train or load ablations of the backbone of a name, ready for evaluation, all in one go.

    ``progress`` takes what is being done, and returns what is called with (steps done, steps in
    all) while training.
    """
    # one classifier for each masking order: there may be dozens of trainings at once
    loaded: dict[str | None, Backbone] = {}
    trainings = []
    for ablation in listed:
        if ablation.masking not in loaded:
            loaded[ablation.masking] = edition.backbone(name, masking=ablation.masking)
        trainings.append(_training(edition, loaded[ablation.masking], ablation))
    # "proposed", "matched", "seed 0", "as in the paper" are one training: any file of it will do,
    # of this study alone, as another may run at the same time
    folder = trainings[0].file.parent
    own = sorted(edition.folder(name).glob("explainer*.safetensors"))  # whole recipes, of seed 0
    run_together(trainings, [*own, *sorted(folder.glob("*.safetensors"))], progress)
    files = [*own, *sorted(folder.glob("*.safetensors"))]
    explainers = [training.explainer(files) for training in trainings]
    for explainer, ablation in zip(explainers, listed, strict=True):
        if ablation.evaluated_with:
            explainer.backbone = explainer.backbone.with_taps(explainer.backbone.taps)
            explainer.backbone.masking = ablation.evaluated_with
    return explainers


def _training(edition: Edition, backbone: Backbone, ablation: Ablation) -> Training:
    """Describe an ablation's training."""
    of_method = edition.training(backbone, method=ablation.method)
    recipe = of_method.recipe
    recipe = recipe if ablation.whole else study_recipe(edition, backbone.name, recipe)
    recipe = replace(recipe, **ablation.changes)
    return edition.training(
        backbone.with_taps(ablation.taps) if ablation.taps else of_method.backbone,
        ablation.variant,
        recipe=recipe,
        seed=ablation.seed,
        name=f"ablations/{ablation.name}",
    )
