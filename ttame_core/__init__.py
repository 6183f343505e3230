"""T-TAME (arXiv 2403.04523): a trainable attention mechanism that explains image classifiers.

>>> import ttame_core as tt
>>> backbone = tt.load_backbone("resnet50", weights="DEFAULT")
>>> explainer = tt.TTAME(backbone)
>>> history = tt.train(explainer, images)  # doctest: +SKIP
>>> maps = explainer.explain(images)  # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(
    __name__, __file__
)  # what __init__.pyi lists, once it is used
__version__ = "0.1.0"
