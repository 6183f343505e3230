"""How AD and IC depend on the number of steps: convergence, and RISE for as many passes."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from ttame_book.editions.counts import A_STEP
from ttame_book.editions.edition import Edition
from ttame_book.editions.trained import Training, run_together
from ttame_core.classifiers.backbone import Backbone
from ttame_core.errors import NotServedError, TTAMEError
from ttame_core.explainer import TTAME
from ttame_core.methods import Method
from ttame_core.methods.rise import rise
from ttame_core.progress import Tell
from ttame_core.recipes import OURS
from ttame_core.steps import initialise

Point = tuple[str, str, int]
"""Of curves over the number of steps: a method, what its recipe departs in, and the steps."""


def training_lengths(
    edition: Edition, backbone: Backbone, progress: Callable[[str], Tell] | None = None
) -> Iterator[tuple[*Point, TTAME]]:
    """Train each T-TAME that is compared for its own number of steps and for those of ``converge``.

    Those that ``converge`` changes are trained by each changed recipe too. ``progress`` takes what
    is being done, and returns what is called with (steps done, in all). Yields method, setting
    (what a recipe departs in, empty for its own), steps and explainer, first of 0 steps; one that
    cannot serve is left out.
    """
    settings = edition.config["converge"]
    asked: list[tuple[*Point, TTAME | Training]] = []
    own = []
    for method in (m for m in edition.config["evaluate"]["methods"] if m in OURS):
        try:
            full = edition.training(backbone, method=method)
        except NotServedError:
            continue
        untrained = TTAME(full.backbone, full.variant, seed=full.seed).eval()
        initialise(untrained, full.images(), full.recipe)
        asked.append((method, "", 0, untrained))
        own.append(full.file)
        lengths = sorted({*settings["steps"], full.recipe.steps})
        changed = settings.get("changed", {}).get(method, ())
        for changes in [*({"steps": steps} for steps in lengths), *changed]:
            # each is trained from its start, as OneCycleLR spreads the rates over all its steps
            recipe = replace(full.recipe, **{k: v for k, v in changes.items() if k != "seed"})
            same = recipe == replace(full.recipe, steps=recipe.steps) and not changes.get("seed")
            if same and recipe.steps in lengths and changes in changed:
                raise TTAMEError(f"converge.changed.{method}: {changes} changes nothing; drop it")
            setting = ", ".join(f"{k} {v}" for k, v in changes.items() if k != "steps")
            name = ",".join([f"convergence/{method}", *(f"{k}={v}" for k, v in changes.items())])
            how = {"recipe": recipe, "seed": changes.get("seed", 0), "name": name}
            training = edition.training(full.backbone, full.variant, **how)
            asked.append((method, setting, recipe.steps, training))
    run_together([t for *_, t in asked if isinstance(t, Training)], own, progress)
    for method, setting, steps, made in asked:
        yield method, setting, steps, made if isinstance(made, TTAME) else made.explainer(own)


def rise_for_as_much(
    edition: Edition, backbone: Backbone, images: int
) -> Iterator[tuple[*Point, Method]]:
    """Make RISE with as many forward passes as each length of T-TAME's training takes.

    So many ``images`` share them. Yields method, an empty setting, steps and explainer; nothing
    where RISE is not compared, or the batch is as large as a GPU holds.
    """
    recipe = edition.training(backbone).recipe
    if "rise" in edition.config["evaluate"]["methods"] and recipe.batch_size != "auto":
        for steps in sorted({*edition.config["converge"]["steps"], recipe.steps}):
            masks = A_STEP * steps * recipe.batch_size // images
            yield "rise", "", steps, rise(backbone, max(1, masks))
