"""How much work an edition is: forward-equivalents, counted rule by rule.

A forward-equivalent is as much arithmetic as one image's pass through the classifier. They are
counted from the configuration that the graph reads, and upper bounds: no answer counts as kept.
"""

import inspect
import math
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from typing import Any

import pandas as pd
import torch
from torchvision.models import VGG

from ttame_book.editions.edition import Edition
from ttame_book.editions.graph import STEPS
from ttame_book.editions.runs import parameters_of
from ttame_core.classifiers.loading import load_backbone, named_taps
from ttame_core.errors import TTAMEError
from ttame_core.methods.cams import AT_ONCE
from ttame_core.methods.registry import CONTROLS, METHODS, rival
from ttame_core.metrics.costs import explanation_costs, metered
from ttame_core.metrics.measures import CURVES, MASKING, ROAD
from ttame_core.recipes import OURS, TRAINED, Recipe

STEP, EXPLAIN, FORWARD = "training step", "explain", "forward"
MASKS, ASKED, IMPUTED, GRADIENT = "RISE", "AD and IC of three v", "ROAD", "Grad-CAM"
"""The kinds of work, by what the table of rates calls them."""
Part = tuple[str, float]  # a kind of work, and its forward-equivalents
A_STEP = 3  # of T-TAME, for each image: itself, the masked one, and that one's way back
VARIANTS_SHOWN = 6  # rows of Table VI for one set of taps
RELEASED = 3  # trainings of any classifier that depart as the released code does
STUDIED_V = 2  # percentages at which grid search and convergence are judged
FOR_TOKENS = ("transformer-lrp", "attention-rollout")


@dataclass(frozen=True)
class Classifier:
    """What the counts hang on, of a classifier and its taps."""

    tokens: bool
    channels: int  # of the layer that CAM methods explain
    behind: float  # share of its arithmetic that lies behind that layer
    taps: int  # number of them
    parts: int  # that are randomised one after the other
    variants: int  # rows of Table VI


@dataclass(frozen=True)
class Work:
    """Work of one kind that a rule does for a backbone, by so many images at a time."""

    rule: str
    backbone: str
    kind: str
    forwards: float
    batch: int


@dataclass(frozen=True)
class Case:
    """A backbone of an edition, with what several rules ask of its configuration."""

    edition: Edition
    name: str
    of: Classifier

    def images(self, split: str, most: int | None = None) -> int:
        """Return how many images of a split there are, at most."""
        data = self.edition.entry(self.name)["data"]
        known = [n for n in (self.edition.config["data"][data].get(split), most) if n]
        if not known:
            raise TTAMEError(f"data.{data} does not say how many images {split} has; give a number")
        return min(known)

    def by_method(self, key: str) -> dict[str, Any]:
        """Take what ``evaluate`` says by method, overruled by what the backbone's entry says."""
        own = self.edition.entry(self.name)
        return {**self.edition.config["evaluate"].get(key, {}), **own.get(key, {})}

    def recipe(self, method: str) -> Recipe:
        """Return how a method is trained on the backbone; the loss's weights change no count."""
        trained = TRAINED[method]
        apart = trained.settings | ((trained.on_tokens or {}) if self.of.tokens else {})
        for settings in (self.edition.config, self.edition.entry(self.name)):
            apart = apart | settings.get("trained", {}).get(method, {})
        known = {field.name for field in fields(Recipe)} - {"loss"}
        own = {name: value for name, value in apart.items() if name in known}
        return replace(self.edition.recipe(self.name), **own)

    def counts(self, key: str) -> dict[str, int]:
        """Return how many images each method that serves explains; ``key`` says of how many."""
        settings, limits = self.edition.config["evaluate"], self.by_method("limits")
        most = self.images("test", settings.get(key))
        served = [name for name in settings["methods"] if serves(name, self.of.tokens)]
        return {name: min(most, limits.get(name, most)) for name in served}

    def map_of(self, method: str) -> Part:
        """Return the kind of a method's work, and what one map takes."""
        return one_map(method, self.of, self.by_method("options").get(method, {}))


def serves(method: str, tokens: bool) -> bool:
    """Say whether a method serves a CNN, or a plain ViT."""
    if method in TRAINED:
        return not tokens or TRAINED[method].on_tokens is not None
    return tokens or method not in FOR_TOKENS


def one_map(method: str, of: Classifier, given: Mapping[str, Any]) -> Part:
    """Return the kind of a method's work, and the forward-equivalents of one map of it."""
    # gradients are asked of maps and images, not of weights: a way back is as long as one there
    if method not in METHODS:  # what a library's class does is not known: a pass there and back
        return (EXPLAIN, 1) if method in TRAINED else (FORWARD, 2)
    known = inspect.signature(pkgutil.resolve_name(METHODS[method].made_by)).parameters
    options = {name: option.default for name, option in known.items()} | {**given}
    match method:
        case "rise":
            return MASKS, options["masks"]
        case "score-cam":
            return MASKS, 1 + of.channels
        case "ablation-cam":  # the image once a chunk, and each channel's variant from there on
            chunks = math.ceil(of.channels / (options["chunk"] or AT_ONCE))
            return FORWARD, 1 + chunks + of.channels * of.behind
        case "iia":
            scales = (options["steps"] or (5 if of.tokens else 10)) + 1
            return FORWARD, 2 * scales**2 if of.tokens else scales + 2 * scales**2 * of.behind
        case "transformer-lrp":  # there, back, and four products a layer for the rules
            return FORWARD, 6
        case "integrated-gradients":
            return FORWARD, 2 * options["steps"]
        case "attention-rollout":
            return FORWARD, 1
    return GRADIENT, 0 if METHODS[method].control else 1 + of.behind


def trainings(recipe: Recipe, steps: int, shared: int | None = None) -> Iterator[Part]:
    """Count trainings by a recipe that take so many steps in all.

    They ask about the images as they are in as many steps, or in ``shared`` ones where several
    trainings share the answers.
    """
    masked = steps * recipe.batch_size
    whole = masked if shared is None else shared * recipe.batch_size
    if recipe.objective == "rise":  # no gradient goes through the classifier
        yield from ((EXPLAIN, whole), (MASKS, recipe.masks * masked))
        return
    yield STEP, whole + (A_STEP - 1) * masked
    if recipe.objective == "both":
        yield MASKS, recipe.masks * masked


def train(case: Case) -> Iterator[Part]:
    """Count the trainings of T-TAME and of the compared methods that are trained alike."""
    for method in dict.fromkeys(["t-tame", *case.counts("images")]):
        if method in TRAINED:
            recipe = case.recipe(method)
            yield from trainings(recipe, recipe.steps)


def evaluate(case: Case) -> Iterator[Part]:
    """Count each method's maps, and what masks by them ask of the classifier."""
    counts = case.counts("images")
    yield FORWARD, sum({*counts.values()})  # the images as they are, once a round
    for method, count in counts.items():
        kind, each = case.map_of(method)
        yield kind, count * each
        yield ASKED, count * len(case.edition.config["evaluate"]["percentages"])


def road(case: Case) -> Iterator[Part]:
    """Count ROAD, insertion and deletion; costly maps that the evaluation made are kept."""
    counts, kept = case.counts("road_images"), case.counts("images")
    yield FORWARD, sum({*counts.values()})
    for method, count in counts.items():
        kind, each = case.map_of(method)
        costly = getattr(rival(method), "costly", False)
        yield kind, each * (max(0, count - kept[method]) if costly else count)
        yield IMPUTED, count * sum(map(len, ROAD.values()))
        yield ASKED, count * sum(map(len, CURVES.values()))


def qualitative(case: Case) -> Iterator[Part]:
    """Count the maps shown, and those that are counted and timed."""
    notebook = case.edition.root / "notebooks" / "06_qualitative.ipynb"
    shown = int(parameters_of(notebook)["shown"].default)
    timed = 1 + inspect.signature(explanation_costs).parameters["repeats"].default
    for method in case.counts("images"):
        kind, each = case.map_of(method)
        yield kind, (shown + timed) * each


def ablations(case: Case) -> Iterator[Part]:
    """Count the rows of Tables VI and VII, of seeds, and of the released code's departures.

    What goes beyond the paper is left out. A training that several rows share is counted once.
    """
    settings, recipe = case.edition.config["ablate"], case.edition.recipe(case.name)
    trained = case.of.variants + 1 + len(settings["seeds"]) + RELEASED + case.of.tokens
    # the proposed method is the matched one, seed 0, as in the paper, and evaluated by raw masks
    rows = trained + 3 + case.of.tokens
    count, asked = case.images("test", settings["images"]), len(MASKING["ad"])
    # the images' own forward serves all but other seeds and the classifier in training mode
    apart = len(settings["seeds"]) + 2
    steps = min(recipe.steps, settings["steps"])
    yield from trainings(recipe, trained * steps, apart * steps)
    yield FORWARD, count * (rows + 2)  # and for the controls, by either order
    yield EXPLAIN, count * rows
    yield ASKED, count * asked * (trained + case.of.tokens + 2 * len(CONTROLS))


def hyperparameters(case: Case) -> Iterator[Part]:
    """Count the grid, of which the edition's own training is there."""
    settings = {**case.edition.config["tune"], **case.edition.entry(case.name).get("tune", {})}
    recipe = case.edition.recipe(case.name)
    rates, lengths = {*settings["max_lr"], recipe.max_lr}, {*settings["steps"], recipe.steps}
    apart = len(rates) * sum(lengths) - recipe.steps
    yield from trainings(recipe, apart, max(lengths))
    maps = case.images("val", settings["images"]) * len(rates) * len(lengths)
    yield from ((FORWARD, maps), (EXPLAIN, maps), (ASKED, STUDIED_V * maps))


def convergence(case: Case) -> Iterator[Part]:
    """Count the lengths of each T-TAME that is compared; for its own length it was trained."""
    settings, longest = case.edition.config["converge"], 0
    for method in (m for m in case.counts("images") if m in OURS):
        recipe, changed = case.recipe(method), settings.get("changed", {}).get(method, ())
        lengths = {*settings["steps"], recipe.steps}
        # the forwards of the images as they are serve all, to the last step of the longest
        yield from trainings(recipe, sum(lengths) - recipe.steps, max(0, max(lengths) - longest))
        longest = max(longest, *lengths)
        for changes in changed:
            other = replace(recipe, **{k: v for k, v in changes.items() if k != "seed"})
            yield from trainings(other, other.steps)
        explained = 1 + len(lengths) + len(changed)  # the untrained one too
        maps = case.images("val", settings["images"]) * explained
        yield from ((FORWARD, maps), (EXPLAIN, maps), (ASKED, STUDIED_V * maps))
    if "rise" in case.counts("images"):  # with as many forwards as T-TAME's trainings
        recipe = case.recipe("t-tame")
        lengths = {*settings["steps"], recipe.steps}
        yield MASKS, A_STEP * sum(lengths) * recipe.batch_size
        yield ASKED, STUDIED_V * case.images("val", settings["images"]) * len(lengths)


def sanity(case: Case) -> Iterator[Part]:
    """Count the maps: the original ones, and at each stage of the two cascades."""
    stages = case.of.parts + 1 + case.of.taps  # the fusion, and a branch a tap
    yield EXPLAIN, case.images("test", case.edition.config["sanity"]["images"]) * (1 + stages)


def counterfactual(case: Case) -> Iterator[Part]:
    """Count the maps of two classes, and the images masked by either."""
    count = case.images("test", case.edition.config["counterfactual"]["images"])
    yield EXPLAIN, count
    yield ASKED, count * 2 * len(case.edition.config["evaluate"]["percentages"])


COUNTS: dict[str, Callable[[Case], Iterator[Part]]] = {s.rule: globals()[s.rule] for s in STEPS}
"""What counts each rule of the graph."""


def classifier_of(edition: Edition, name: str) -> Classifier:
    """Look at a backbone of an edition that has no weights and no values, so that nothing runs."""
    for module in edition.classifier_code(name):
        import_module(module)  # the demo's registers its classifiers
    with torch.device("meta"):
        backbone = load_backbone(name, None, edition.entry(name).get("taps"))
    # CAM methods explain the norm in a ViT's last block, of which the last tap is the output
    layer = backbone.taps[-2 if backbone.tokens else -1]
    image = torch.empty(1, 3, *[backbone.preprocessing.image_size] * 2, device="meta")
    with torch.no_grad(), metered() as (once, _):
        backbone.logits(image)
    doubled = backbone.replaced(layer, lambda output: torch.cat([output, output]))
    with torch.no_grad(), metered() as (twice, _), doubled:
        backbone.logits(image)
    behind = twice.get_total_flops() / once.get_total_flops() - 1
    depth = max(tap.count(".") for tap in backbone.taps) + 1
    modules = [n.rpartition(".")[0] or n for n, _ in backbone.model.named_parameters()]
    sets = named_taps(name).values()
    by_sets = isinstance(backbone.model, VGG) and len(sets) > 1
    others = sum(layers != backbone.taps for layers in sets)
    rows = VARIANTS_SHOWN * len(sets) if by_sets else VARIANTS_SHOWN + others
    parts = len({".".join(module.split(".")[:depth]) for module in modules})
    kind = backbone.tokens, backbone.shapes[-1][0], behind
    return Classifier(*kind, len(backbone.taps), parts, rows)


def count(edition: Edition, classifiers: Mapping[str, Classifier] | None = None) -> list[Work]:
    """Count an edition's work, rule by rule, for each backbone for which a rule runs.

    ``classifiers`` are those of its backbones, which are looked at by default.
    """
    works = []
    for name in edition.backbones:
        case = Case(edition, name, (classifiers or {}).get(name) or classifier_of(edition, name))
        training, other = edition.recipe(name).batch_size, edition.config["evaluate"]["batch_size"]
        for step in (step for step in STEPS if name in getattr(edition, step.among)):
            for kind, forwards in COUNTS[step.rule](case):
                batch = training if kind == STEP else other
                if forwards:
                    works.append(Work(step.rule, name, kind, forwards, batch))
    return works


def counted(works: Sequence[Work]) -> pd.DataFrame:
    """Return the forward-equivalents of each rule (row), by backbone (column)."""
    rows = pd.DataFrame([vars(work) for work in works])
    table = rows.pivot_table("forwards", "rule", "backbone", "sum", fill_value=0.0)
    return table.loc[[s.rule for s in STEPS if s.rule in table.index], rows["backbone"].unique()]
