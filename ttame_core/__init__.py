"""T-TAME (arXiv 2403.04523): a trainable attention mechanism that explains image classifiers.

>>> import ttame_core as tt
>>> backbone = tt.load_backbone("resnet50", weights="DEFAULT")
>>> explainer = tt.TTAME(backbone)
>>> history = tt.train(explainer, images)  # doctest: +SKIP
>>> maps = explainer.explain(images)  # doctest: +SKIP
"""

from ttame_core import figures
from ttame_core.attention import VARIANTS, AttentionMechanism
from ttame_core.backbones import Backbone, load_backbone
from ttame_core.costs import explanation_costs
from ttame_core.data import ImageFolder, read_image
from ttame_core.editions import Edition
from ttame_core.errors import TTAMEError
from ttame_core.explainer import TTAME, Explanation
from ttame_core.imputation import impute, mean_fill
from ttame_core.losses import LossWeights, ttame_loss
from ttame_core.masking import keep_top, mask_images, minmax, select_top
from ttame_core.methods import METHODS, method
from ttame_core.metrics import MEASURES, evaluate, score_batch
from ttame_core.progress import Progress
from ttame_core.ready import load_explainer
from ttame_core.runs import Run, start_run
from ttame_core.taps import list_taps
from ttame_core.training import Recipe, train
from ttame_core.wheels import DigitsInPhotographs, WheelPhotographs

__version__ = "0.1.0"

__all__ = [
    "MEASURES",
    "METHODS",
    "TTAME",
    "VARIANTS",
    "AttentionMechanism",
    "Backbone",
    "DigitsInPhotographs",
    "Edition",
    "Explanation",
    "ImageFolder",
    "LossWeights",
    "Progress",
    "Recipe",
    "Run",
    "TTAMEError",
    "WheelPhotographs",
    "evaluate",
    "explanation_costs",
    "figures",
    "impute",
    "keep_top",
    "list_taps",
    "load_backbone",
    "load_explainer",
    "mask_images",
    "mean_fill",
    "method",
    "minmax",
    "read_image",
    "score_batch",
    "select_top",
    "start_run",
    "train",
    "ttame_loss",
]
