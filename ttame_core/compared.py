"""The methods that an edition compares on a backbone, and their scores on its test images."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from torch.utils.data import DataLoader, Dataset

from ttame_core.backbones import Backbone
from ttame_core.configuration import TRAINED
from ttame_core.data import spread
from ttame_core.editions import Edition
from ttame_core.errors import NotServedError
from ttame_core.methods import Method, method
from ttame_core.metrics import Measures, evaluate
from ttame_core.progress import Tell
from ttame_core.remembered import Remembered, methods_version
from ttame_core.statistics import in_order

Round = tuple[Dataset, dict[str, Method]]
"""Test images, and the methods scored on them."""


COSTLY = ("score-cam", "ablation-cam", "rise", "iia", "transformer-lrp", "integrated-gradients")
"""Methods that take an image at a time, and long: their maps are kept."""


def compared_methods(
    edition: Edition, backbone: Backbone, keep: bool = False
) -> tuple[dict[str, Method], dict[str, str]]:
    """Make the methods compared on a backbone ready to be called, T-TAME among them.

    Parameters
    ----------
    edition : Edition
        Says which methods, and their options.
    backbone : Backbone
        As the edition loaded it.
    keep : bool
        Whether maps of costly methods are kept in the backbone's folder, for all runs of the edition.

    Returns
    -------
    tuple of dict
        Methods by name, and why those that cannot serve this backbone are left out.
    """
    ready: dict[str, Method] = {}
    left_out: dict[str, str] = {}
    settings = edition.config["evaluate"]
    options = {**settings.get("options", {}), **edition.entry(backbone.name).get("options", {})}
    for name in settings["methods"]:
        try:
            if name in TRAINED:
                ready[name] = edition.explainer(backbone, method=name).explain
            else:
                own = options.get(name, {})
                ready[name] = method(name, backbone, **own)
                if keep and name in COSTLY:
                    about = f"{name} {own} {methods_version()} {backbone.identity()}"
                    folder = edition.home / edition.folder(backbone.name).name / "maps" / name
                    ready[name] = Remembered(ready[name], folder, about)
        except NotServedError as reason:
            left_out[name] = str(reason)
    return ready, left_out


def rivals_to_train(edition: Edition, backbone: Backbone) -> list[str]:
    """Name the compared methods that are trained beside T-TAME and can serve a backbone."""
    rivals = []
    for name in edition.config["evaluate"]["methods"]:
        if name in TRAINED and name != "t-tame":
            try:
                edition.training(backbone, method=name)
                rivals.append(name)
            except NotServedError:
                continue
    return rivals


def most_images(edition: Edition, backbone: Backbone, name: str, most: int) -> int:
    """Return how many of so many images a method explains on a backbone: fewer where it costs much."""
    of_all = edition.config["evaluate"].get("limits", {})
    return min(most, {**of_all, **edition.entry(backbone.name).get("limits", {})}.get(name, most))


def evaluation_rounds(
    edition: Edition, backbone: Backbone, methods: dict[str, Method], limit: str = "images"
) -> list[Round]:
    """Say which methods are scored on which test images: costly ones on fewer, spread over all.

    Parameters
    ----------
    edition : Edition
        Gives images and limits.
    backbone : Backbone
        As the edition loaded it.
    methods : dict
        From `compared_methods`.
    limit : {"images", "road_images"}
        Entry of the configuration's ``evaluate`` that says how many at most.

    Returns
    -------
    list of (Dataset, dict)
        Test images, and the methods scored on them; the most images first.
    """
    images = edition.images(backbone, "test")
    most = edition.config["evaluate"].get(limit, len(images))
    counts = {name: most_images(edition, backbone, name, most) for name in methods}
    return [
        (spread(images, count), {n: f for n, f in methods.items() if counts[n] == count})
        for count in sorted(set(counts.values()), reverse=True)
    ]


def score_rounds(
    edition: Edition,
    backbone: Backbone,
    rounds: Sequence[Round],
    measures: Measures,
    progress: Callable[[str], Tell] | None = None,
    keep: Path | None = None,
) -> pd.DataFrame:
    """Score every method on its test images.

    Parameters
    ----------
    edition : Edition
        Gives batch size, seed and the order of methods.
    backbone : Backbone
        As the edition loaded it.
    rounds : sequence of (Dataset, dict)
        From `evaluation_rounds`.
    measures : mapping of str to sequence of float
        See `evaluate`.
    progress : callable, optional
        Takes what is being done, and returns what is called with (images done, images in all).
    keep : Path, optional
        See `evaluate`.

    Returns
    -------
    DataFrame
        As `evaluate` returns it, in the edition's order of methods.
    """
    settings = edition.config["evaluate"]
    parts = []
    for images, methods in rounds:
        count = len(images)  # type: ignore[arg-type]
        label = f"{backbone.name}, {', '.join(methods)}"
        tell = _of_so_many(progress(label), count) if progress else None
        batches = DataLoader(images, batch_size=settings["batch_size"])
        of_round = evaluate(
            backbone, methods, batches, measures, edition.seed, progress=tell, keep=keep
        )
        parts.append(of_round)
    return in_order(pd.concat(parts), settings["methods"])


def _of_so_many(tell: Tell, total: int) -> Callable[[int], None]:
    return lambda done: tell(done, total)
