"""Image classifiers of Hugging Face's transformers, with their image processors' preprocessing."""

from textwrap import shorten
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from ttame_core.errors import TTAMEError, needed
from ttame_core.images.reading import Preprocessing, centre_crop

SCHEME = "hf"
"""What stands before the slash in a name."""


def build_hugging_face(
    name: str, published: str | None, options: dict
) -> tuple[nn.Module, Preprocessing]:
    """Build ``hf/NAME`` from the hub, its cache, or a folder; see `loading.build`."""
    transformers = needed("transformers", "transformers", name)
    if published not in (None, "DEFAULT"):
        raise TTAMEError(f"{name} has no weights {published!r}; expected 'DEFAULT', None or a file")
    place, auto = name.removeprefix(f"{SCHEME}/"), transformers.AutoModelForImageClassification
    try:
        config, others = transformers.AutoConfig.from_pretrained(
            place, return_unused_kwargs=True, **options
        )
        if published:
            model = auto.from_pretrained(place, config=config, **others)
        else:
            model = auto.from_config(config, **others)
        preprocessing = _preprocessing_of(transformers.AutoImageProcessor.from_pretrained(place))
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
    # looked at, as some processors normalise twice and some not at all
    black, white = outputs[:2, :, 0, 0].double()  # (3,)
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
