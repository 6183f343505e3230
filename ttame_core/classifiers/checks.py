"""What every door to a classifier checks: the backbone, and how many images pass at once."""

from typing import Any

from torch import nn

from ttame_core.classifiers.backbone import Backbone
from ttame_core.errors import TTAMEError, check_whole, told


def check_backbone(backbone: Any) -> None:
    """Raise a TTAMEError unless it is a `Backbone`; it says how to make one of what is given."""
    if isinstance(backbone, Backbone):
        return
    remedy = "tt.Backbone(model) or tt.load_backbone(name)"
    if isinstance(backbone, str):
        remedy = f"tt.load_backbone({backbone!r})"
    elif isinstance(getattr(backbone, "backbone", None), Backbone):
        remedy = "the explainer's own, explainer.backbone"
    elif isinstance(backbone, nn.Module):
        remedy = "tt.Backbone(model)"
    raise TTAMEError(f"the backbone is {told(backbone)}; expected a tt.Backbone: {remedy}")


def check_chunk(chunk: Any) -> None:
    """Raise a TTAMEError unless it is None, or how many may pass at once."""
    if chunk is not None:
        check_whole("chunk", chunk, 1)
