"""What the package offers; each name is loaded when it is first used."""

from . import figures, masking, methods, metrics
from .attention import VARIANTS, AttentionMechanism
from .backbones import Backbone, load_backbone
from .costs import explanation_costs
from .data import ImageFolder, read_image
from .editions import Edition
from .errors import TTAMEError
from .explainer import TTAME, Explanation
from .imputation import impute, mean_fill
from .losses import LossWeights, ttame_loss
from .masking import keep_top, mask_images, minmax, select_top
from .methods import METHODS, method
from .metrics import MEASURES, evaluate, score_batch
from .progress import Progress
from .ready import load_explainer
from .runs import Run, start_run
from .taps import list_taps
from .training import Recipe, train
from .wheels import DigitsInPhotographs, WheelPhotographs
from .zoo import Preprocessing

__version__: str

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
    "Preprocessing",
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
    "masking",
    "mean_fill",
    "method",
    "methods",
    "metrics",
    "minmax",
    "read_image",
    "score_batch",
    "select_top",
    "start_run",
    "train",
    "ttame_loss",
]
