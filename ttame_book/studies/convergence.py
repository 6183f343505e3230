"""How AD and IC depend on the number of steps: convergence, and RISE for as many passes."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from ttame_book.editions.counts import A_STEP
from ttame_book.editions.edition import Edition
from ttame_book.editions.trained import Training, run_together
from ttame_core.classifiers.backbone import Backbone
from ttame_core.errors import NotServedError
from ttame_core.explainer import TTAME
from ttame_core.methods import Method
from ttame_core.methods.rise import rise
from ttame_core.progress import Tell
from ttame_core.recipes import OURS
from ttame_core.steps import initialise


def training_lengths(
    edition: Edition, backbone: Backbone, progress: Callable[[str], Tell] | None = None
) -> Iterator[tuple[str, int, TTAME]]:
    """Train each T-TAME that is compared for its own number of steps and for those of ``converge``.

    Those that ``converge`` changes are trained with each change too, for their own number of steps.
    ``progress`` takes what is being done, and returns what is called with (steps done, in all).
    Yields method, steps and explainer, first of 0 steps; one that cannot serve is left out.
    """
    settings = edition.config["converge"]
    asked: list[tuple[str, int, TTAME | Training]] = []
    own = []
    for method in (m for m in edition.config["evaluate"]["methods"] if m in OURS):
        try:
            full = edition.training(backbone, method=method)
        except NotServedError:
            continue
        untrained = TTAME(full.backbone, full.variant, seed=full.seed).eval()
        initialise(untrained, full.images(), full.recipe)
        asked.append((method, 0, untrained))
        own.append(full.file)
        for steps in sorted({*settings["steps"], full.recipe.steps}):
            # each is trained from its start, as OneCycleLR spreads the rates over all its steps
            recipe = replace(full.recipe, steps=steps)
            name = f"convergence/{method},steps={steps}"
            training = edition.training(full.backbone, full.variant, recipe=recipe, name=name)
            asked.append((method, steps, training))
        for changes in settings.get("changed", {}).get(method, ()):
            fields = {name: value for name, value in changes.items() if name != "seed"}
            recipe, seed = replace(full.recipe, **fields), changes.get("seed", 0)
            name = f"{method}, {', '.join(f'{k} {v}' for k, v in changes.items())}"
            how = {"recipe": recipe, "seed": seed, "name": f"convergence/{name}"}
            asked.append((name, recipe.steps, edition.training(full.backbone, full.variant, **how)))
    run_together([t for *_, t in asked if isinstance(t, Training)], own, progress)
    for method, steps, made in asked:
        yield method, steps, made if isinstance(made, TTAME) else made.explainer(own)


def rise_for_as_much(
    edition: Edition, backbone: Backbone, images: int
) -> Iterator[tuple[str, int, Method]]:
    """Make RISE with as many forward passes as each length of T-TAME's training takes.

    So many ``images`` share them. Yields method, steps and explainer; nothing where RISE is
    not compared, or the batch is as large as a GPU holds.
    """
    recipe = edition.training(backbone).recipe
    if "rise" in edition.config["evaluate"]["methods"] and recipe.batch_size != "auto":
        for steps in sorted({*edition.config["converge"]["steps"], recipe.steps}):
            masks = A_STEP * steps * recipe.batch_size // images
            yield "rise", steps, rise(backbone, max(1, masks))
