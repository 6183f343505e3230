"""What costs much is kept beside a backbone's results, under the key of all that it depends on."""

from typing import Any

from ttame_book.editions.edition import Edition
from ttame_book.editions.keys import answers_key, maps_key
from ttame_core.classifiers.backbone import Backbone
from ttame_core.methods import Method
from ttame_core.methods.registry import rival
from ttame_core.metrics.cache import KeptConfidences, KeptMaps


def kept_answers(edition: Edition, backbone: Backbone) -> KeptConfidences:
    """Keep a classifier's answers: a killed run goes on from them, a repeated one asks nothing."""
    folder = edition.home / edition.folder(backbone.name).name / "answers"
    about = answers_key(edition, backbone.name, backbone.precision)
    return KeptConfidences(backbone, folder, about)


def kept_maps(
    edition: Edition, backbone: Backbone, name: str, method: Method, options: dict[str, Any]
) -> KeptMaps:
    """Keep a method's maps, for all runs of the edition: they do not depend on its settings."""
    settings = {"options": options, "precision": backbone.precision, **backbone.identity()}
    made = rival(name)
    assert made  # what is not trained
    about = maps_key(edition, backbone.name, made.made_by, settings)
    folder = edition.home / edition.folder(backbone.name).name / "maps" / name.replace(":", "-")
    return KeptMaps(method, folder, about)
