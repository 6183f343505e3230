"""The explainers that the paper's authors have released: Lightning checkpoints of their training.

Facts about the files, not their code: three mechanisms, for VGG-16, ResNet-50 and ViT-B/16.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ttame_core.classifiers.backbone import Backbone
from ttame_core.classifiers.checkpoints import load_weights, read_state
from ttame_core.classifiers.loading import TORCHVISION, load_backbone
from ttame_core.errors import TTAMEError, check_kind, check_known, check_whole, told
from ttame_core.explainer import PATH, TTAME

OWN = "file"
"""In place of weights: those of the classifier inside the file."""
VERSIONS = ("TAME",)
"""Attention versions that are the paper's mechanism; other ones are other mechanisms."""
ORDER_OF = {"raw_normalize": "image", "new": "standardised"}
"""The masking order of each of their training methods."""
TALLEST = 56
"""Their maps have at most so many cells a side."""
BODY, MECHANISM = "generic.body.", "generic.attn_mech."
PARTS = {
    r"convs\.(\d+)\.": r"branches.\1.conv.",
    r"bns\.(\d+)\.": r"branches.\1.norm.",
    r"fuser\.": "fusion.",
}
"""What their names begin with, and what ours do."""
UNLIKE = 0.01
"""Weights that are further from the file's than this share of their norm are another training's."""
SAVED = "{key: checkpoint[key] for key in ('state_dict', 'hyper_parameters')}"


@dataclass(frozen=True)
class Released:
    """What a released checkpoint holds, under the names that are used here.

    Attributes
    ----------
    path : Path
        The file.
    classifier : str
        Name of torchvision's classifier.
    taps : tuple of str
        Its tapped layers.
    masking : {"image", "standardised"}
        The masking order of the training.
    num_classes : int
        K.
    mechanism, body : mapping of str to Tensor
        State dicts of the attention mechanism, and of the classifier as it was at the end of the
        training, with the batch-norm statistics that had drifted by then.
    """

    path: Path
    classifier: str
    taps: tuple[str, ...]
    masking: str
    num_classes: int
    mechanism: Mapping[str, Tensor]
    body: Mapping[str, Tensor]

    def backbone(self, weights: Any = OWN, **options: Any) -> Backbone:
        """Load the classifier, tapped as it was in the training; see `load_released`."""
        own: dict[str, Any] = {
            "taps": self.taps,
            "masking": self.masking,
            "num_classes": self.num_classes,
            "preprocessing": {"resize": 256},  # the paper's; newer published weights have others
        }
        given = {key: value for key, value in options.items() if value is not None}
        state = self.body if isinstance(weights, str) and weights == OWN else weights
        return load_backbone(self.classifier, state, **own | given)

    def explainer(self, backbone: Backbone, weights: Any = OWN) -> TTAME:
        """Put the attention mechanism on a classifier, in evaluation mode.

        ``weights`` says whose the classifier's are, for the notes that the explainer's file keeps.
        A TTAMEError is raised for a classifier with other taps, or of another training.
        """
        if {*backbone.taps} != {*self.taps}:
            raise TTAMEError(
                f"{self.path} explains the taps {list(self.taps)}, and {backbone.name} has {list(backbone.taps)}; "
                "load the classifier with those of the file"
            )
        self._check_training(backbone)
        explainer = TTAME(backbone, {"tallest": TALLEST})
        load_weights(explainer.attention, self.mechanism, f"{self.path}, {MECHANISM}*")
        source = weights if isinstance(weights, str) else told(weights)
        explainer.seed, explainer.notes = None, {"checkpoint": self.path.name, "classifier": source}
        return explainer.eval()

    def _check_training(self, backbone: Backbone) -> None:
        """Raise a TTAMEError unless a classifier's parameters are the file's.

        The classifier was frozen: nothing but statistics, which are no parameters, has changed.
        """
        for name, parameter in backbone.model.named_parameters():
            own, value = self.body.get(name), parameter.detach().float().cpu()
            if (
                own is None
                or own.shape != value.shape
                or (value - own).norm() > UNLIKE * own.norm()
            ):
                raise TTAMEError(
                    f"{name} of {backbone.name} is not what {self.path} was trained with; expected the classifier "
                    f"inside the file (weights={OWN!r}), or the published weights that it began with, such as "
                    "'IMAGENET1K_V1'"
                )


def load_released(path: str | Path, weights: Any = OWN, **options: Any) -> TTAME:
    """Load an explainer that the paper's authors have released, with its classifier.

    Its maps are theirs: the values before the sigmoid, scaled to [0, 1]; at most 56 cells a side.

    Parameters
    ----------
    path : str or Path
        A Lightning checkpoint such as ``resnet50_TTAME.ckpt``, from the authors' pages. No code of
        it is run.
    weights
        The classifier's: ``"file"`` takes the classifier inside the checkpoint, whose batch-norm
        statistics drifted in the training; anything that `load_backbone` takes replaces it, such as
        the published ``"IMAGENET1K_V1"``. The explainer's ``notes`` say which it was, and are a
        part of what `TTAME.save` writes.
    **options
        See `load_backbone`. Images are resized to 256 pixels by default, as the paper's.

    Returns
    -------
    TTAME
        In evaluation mode.

    Raises
    ------
    TTAMEError
        For a file that is no such checkpoint or would need code to be run, another attention
        mechanism, an unknown classifier, layer or training method, weights that are missing, do not
        fit or are not finite, and a classifier of another training.
    """
    found = read_released(path)
    return found.explainer(found.backbone(weights, **options), weights)


def read_released(path: str | Path) -> Released:
    """Read a released checkpoint and run no code of it; it refuses what `load_released` does."""
    check_kind("path", path, PATH, "the name of a released checkpoint, such as 'vgg16_TTAME.ckpt'")
    path = Path(path)
    if not path.exists():
        raise TTAMEError(f"there is no checkpoint at {path}; download it, or correct the path")
    found = read_state(path, SAVED)
    for name in ("hyper_parameters", "state_dict"):
        if not isinstance(found.get(name), Mapping):
            raise TTAMEError(
                f"{path} has no {name} but {sorted(map(str, found))[:5]}; expected a Lightning checkpoint that the "
                "paper's authors have released"
            )
    settings, state = found["hyper_parameters"], found["state_dict"]
    _check_settings(settings, path)
    parts = {
        start: {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
        for start in (MECHANISM, BODY)
    }
    for start, part in parts.items():
        if not part:
            raise TTAMEError(f"{path} holds no {start}* in its state_dict; take a whole copy")
    fuser = parts[MECHANISM].get("fuser.weight")
    classes = settings["num_classes"]
    if fuser is not None and len(fuser) != classes:
        raise TTAMEError(
            f"{path} says num_classes {classes}, and its fuser has {len(fuser)} rows; take a whole copy"
        )
    return Released(
        path,
        settings["model_name"],
        # the norm in front of the block's attention
        tuple(re.sub(r"\.ln$", ".ln_1", layer) for layer in settings["layers"]),
        ORDER_OF[settings["train_method"]],
        int(classes),
        {_renamed(name): value for name, value in parts[MECHANISM].items()},
        parts[BODY],
    )


def _check_settings(settings: Mapping[str, Any], path: Path) -> None:
    """Raise a TTAMEError unless a checkpoint's settings are those of a mechanism that is known."""
    known = {"attention_version": VERSIONS, "train_method": ORDER_OF, "model_name": TORCHVISION}
    for name in (*known, "layers", "num_classes"):
        if name not in settings:
            raise TTAMEError(
                f"{path} does not say its {name}, but {sorted(map(str, settings))}; expected a released T-TAME"
            )
    for name, valid in known.items():
        check_known(f"{path}: {name}", settings[name], valid)
    layers = settings["layers"]
    texts = isinstance(layers, list | tuple) and all(isinstance(each, str) for each in layers)
    if not texts or not layers:
        raise TTAMEError(f"{path}: layers are {told(layers)}; expected names of layers")
    check_whole(f"{path}: num_classes", settings["num_classes"], 1)


def _renamed(name: str) -> str:
    """Give a weight of the attention mechanism the name that it has here."""
    for theirs, ours in PARTS.items():
        if re.match(theirs, name):
            return re.sub(f"^{theirs}", ours, name)
    return name
