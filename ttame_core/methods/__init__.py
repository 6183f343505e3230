"""The compared methods: ``method(name, backbone)`` makes one, ``(images, classes) -> maps``.

Each is a function of a module here, listed in `registry.METHODS`. All keep to one contract:

- It takes a `Backbone`, the classifier to be explained, and options by name. It raises a
  `NotServedError` if it cannot serve that classifier, and a TTAMEError for bad options.
- What it returns takes images ``(B, 3, H, W)`` in [0, 1] and classes ``(B,)`` int64, and gives maps
  ``(B, h, w)`` in [0, 1], at a size of its own. An image's map does not depend on its batch.
- ``chunk``, where there is one, is how many images pass at once: it changes memory and speed, not
  the maps (None: what suits the device).
- ``progress`` is called with (done, in all) within a call; ``seed`` decides all that is drawn.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ttame_core import lazy

if TYPE_CHECKING:
    from torch import Tensor

EXTRA = "ttame_core[methods]"
"""What to install for methods that stand on a library."""
Method = Callable[["Tensor", "Tensor"], "Tensor"]
"""``images (B, 3, H, W), classes (B,) -> maps (B, h, w)`` in [0, 1]."""
MODULES = {"library": ("method",)}
__getattr__, __dir__, __all__ = lazy(__name__, MODULES)
