"""The methods that an edition compares on a backbone, and their scores on its test images.

``evaluate`` in the edition's configuration says which methods, on how many images, with which
options; a backbone is passed as the edition loaded it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd
from torch.utils.data import DataLoader, Dataset

from ttame_book.editions.edition import Edition
from ttame_book.editions.kept import kept_maps
from ttame_core.classifiers.backbone import Backbone
from ttame_core.errors import NotServedError
from ttame_core.images.folders import evenly
from ttame_core.methods import Method
from ttame_core.methods.library import method
from ttame_core.methods.registry import rival
from ttame_core.metrics.cache import KeptConfidences
from ttame_core.metrics.measures import Percentages
from ttame_core.metrics.scores import evaluate
from ttame_core.progress import Tell
from ttame_core.recipes import TRAINED

Round = tuple[Dataset, dict[str, Method]]
"""Test images, and the methods scored on them."""


def compared_methods(
    edition: Edition, backbone: Backbone, keep: bool = False
) -> tuple[dict[str, Method], dict[str, str]]:
    """Make the methods compared on a backbone ready to be called, T-TAME among them.

    With ``keep`` the maps of costly ones are kept in the backbone's folder, for all runs of the
    edition. Returns methods by name, and why those that cannot serve the backbone are left out.
    """
    ready: dict[str, Method] = {}
    left_out: dict[str, str] = {}
    options = _settings(edition, backbone, "options")
    for name in edition.config["evaluate"]["methods"]:
        try:
            if name in TRAINED:
                ready[name] = edition.explainer(backbone, method=name).explain
                continue
            own = options.get(name, {})
            ready[name] = method(name, backbone, **own)
        except NotServedError as reason:
            left_out[name] = str(reason)
            continue
        made = rival(name)
        if keep and made and made.costly:
            ready[name] = kept_maps(edition, backbone, name, ready[name], own)
    return ready, left_out


def _settings(edition: Edition, backbone: Backbone, key: str) -> dict[str, Any]:
    """Take what ``evaluate`` says by method, overruled by what the backbone's own entry says."""
    of_all, own = edition.config["evaluate"], edition.entry(backbone.name)
    return {**of_all.get(key, {}), **own.get(key, {})}


def most_images(edition: Edition, backbone: Backbone, name: str, most: int) -> int:
    """Return how many of so many images a method explains on a backbone: fewer if it costs much."""
    return min(most, _settings(edition, backbone, "limits").get(name, most))


def evaluation_rounds(
    edition: Edition, backbone: Backbone, methods: dict[str, Method], limit: str = "images"
) -> list[Round]:
    """Say which methods are scored on which test images: costly ones on fewer, spread over all.

    ``limit`` is the entry of ``evaluate`` that says how many at most, ``images`` or
    ``road_images``. The round of the most images comes first.
    """
    images = edition.images(backbone, "test")
    most = edition.config["evaluate"].get(limit, len(images))
    counts = {name: most_images(edition, backbone, name, most) for name in methods}
    return [
        (evenly(images, count), {n: f for n, f in methods.items() if counts[n] == count})
        for count in sorted(set(counts.values()), reverse=True)
    ]


def score_rounds(
    edition: Edition,
    backbone: Backbone,
    rounds: Sequence[Round],
    measures: Percentages,
    progress: Callable[[str], Tell] | None = None,
    confidences: KeptConfidences | None = None,
) -> pd.DataFrame:
    """Score every method on its test images, as `evaluate` does, in the edition's order of methods.

    ``progress`` takes what is being done, and returns what is called with (images done, in all).
    """
    settings = edition.config["evaluate"]
    parts = []
    for images, methods in rounds:
        count = len(images)  # type: ignore[arg-type]
        tell = progress(f"{backbone.name}, {', '.join(methods)}") if progress else None
        scores = evaluate(
            backbone,
            methods,
            DataLoader(images, batch_size=settings["batch_size"]),
            measures,
            edition.seed,
            progress=_of_so_many(tell, count) if tell else None,
            confidences=confidences,
        )
        parts.append(scores)
    return in_order(pd.concat(parts), settings["methods"])


def _of_so_many(tell: Tell, total: int) -> Callable[[int], None]:
    return lambda done: tell(done, total)


def in_order(table: pd.DataFrame, names: Iterable[str], column: str = "method") -> pd.DataFrame:
    """Put a table's rows in an order of methods, or of another column's names."""
    place = {name: i for i, name in enumerate(names)}
    return table.sort_values(column, key=lambda found: found.map(place), kind="stable")
