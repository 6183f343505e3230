"""The graph's steps: one table of the notebooks that run for each backbone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttame_book.editions.configuration import Configuration
from ttame_book.editions.keys import result_key
from ttame_core.recipes import TRAINED

COMPARED = ("evaluate.methods", "evaluate.options", "evaluate.limits", "trained")
TRAINING = ("train", "val")  # photographs of both parts are looked at


@dataclass(frozen=True)
class Step:
    """A notebook that runs for each backbone.

    Attributes
    ----------
    notebook : str
        Its name without suffix.
    does : str
        What it does, in a sentence.
    outputs : tuple of str
        Files that it writes into the backbone's folder, beside itself.
    settings : tuple of str
        Entries of the configuration that it depends on.
    needs : tuple of str
        Files of the backbone's folder that earlier steps wrote.
    photographs : tuple of str
        Parts of a folder of photographs that it reads.
    among : {"backbones", "trained", "scored", "studied", "converged"}
        Property of the edition that lists the backbones.
    timed : bool
        Whether it takes times, so that on a GPU nothing may run beside it.
    """

    notebook: str
    does: str
    outputs: tuple[str, ...]
    settings: tuple[str, ...]
    needs: tuple[str, ...] = ()
    photographs: tuple[str, ...] = ("val",)
    among: str = "backbones"
    timed: bool = False

    @property
    def rule(self) -> str:
        """Name of its rule: the notebook's without its number."""
        return self.notebook.partition("_")[2]


EXPLAINER = "explainer.safetensors"
STEPS = (
    Step(
        "03_train",
        "Train the attention mechanism of one backbone, and the compared methods that are trained.",
        (EXPLAINER, "training.csv"),
        ("train", "trained"),
        photographs=TRAINING,
        among="trained",
    ),
    Step(
        "04_evaluate",
        "Score every method on one backbone: AD, IC, localisation.",
        ("scores.parquet", "means.csv"),
        (*COMPARED, "evaluate.percentages", "evaluate.images"),
        (EXPLAINER,),
        among="scored",
    ),
    Step(
        "05_road",
        "Remove pixels by noisy linear imputation: ROAD, insertion and deletion.",
        ("road.parquet", "road.csv"),
        (*COMPARED, "evaluate.road_images"),
        (EXPLAINER, "scores.parquet"),  # by then maps of costly methods are there
        among="scored",
    ),
    Step(
        "06_qualitative",
        "Show the maps of every method side by side, and what each costs.",
        ("costs.csv",),
        COMPARED,
        (EXPLAINER, "scores.parquet"),
        timed=True,
    ),
    Step(
        "07_ablations",
        "Train and score the rows of Tables VI and VII, other seeds, and departures.",
        ("ablations.parquet",),
        ("train", "trained", "ablate", "evaluate.methods"),
        photographs=TRAINING,
        among="studied",
    ),
    Step(
        "08_hyperparameters",
        "Search learning rate and number of steps on validation images.",
        ("grid.parquet",),
        ("train", "tune"),
        (EXPLAINER,),
        photographs=TRAINING,
        among="studied",
    ),
    Step(
        "09_convergence",
        "Follow AD and IC over the number of training steps.",
        ("convergence.parquet",),
        ("train", "trained", "converge", "evaluate.methods"),
        (EXPLAINER,),
        photographs=TRAINING,
        among="converged",
    ),
    Step(
        "10_sanity",
        "Randomise classifier and attention mechanism part by part.",
        ("sanity.parquet",),
        ("sanity",),
        (EXPLAINER,),
        among="scored",
    ),
    Step(
        "11_counterfactual",
        "Show and score maps of classes that were not predicted.",
        ("runner-up.parquet",),
        ("counterfactual", "evaluate.percentages"),
        (EXPLAINER,),
        among="scored",
    ),
)


def needed(edition: Configuration, step: Step, backbone: str) -> list[str]:
    """List those of a step's needs that there are of a backbone: a gallery has no scores."""
    ran = [each for each in STEPS if backbone in getattr(edition, each.among)]
    return [file for file in step.needs if any(file in each.outputs for each in ran)]


def step_key(edition: Configuration, step: Step, backbone: str) -> str:
    """Key of what a step writes for a backbone: code, settings, photographs and weights."""
    entry = edition.entry(backbone)
    settings: dict[str, Any] = {"entry": entry, "data": edition.config["data"][entry["data"]]}
    if lists := edition.lists(backbone):
        settings["lists"] = lists
    of_all = ("seed", "precision") if "precision" in edition.config else ("seed",)
    for name in (*of_all, *step.settings):
        section, _, part = name.partition(".")
        found = edition.config.get(section)
        settings[name] = found.get(part) if part and found else found
    if "explainers" in entry:
        settings["explainers"] = step_key(edition.trainer(backbone), STEPS[0], backbone)
    if not step.needs:  # it trains what is compared
        compared = edition.config["evaluate"]["methods"]
        settings["trained methods"] = [name for name in compared if name in TRAINED]
    code: list[str | Path] = [
        edition.root / "notebooks" / f"{step.notebook}.ipynb",
        *edition.code(backbone),
    ]
    inputs = [*edition.photographs(backbone, *step.photographs), *edition.weights(backbone)]
    return result_key(code, settings, inputs)
