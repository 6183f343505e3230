"""Image classifiers of Hugging Face's transformers, with their image processors' preprocessing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from ttame_core.errors import TTAMEError, needed
from ttame_core.images.reading import Preprocessing, Resize

SCHEME = "hf"
"""What stands before the slash in a name."""
LEVELS = 3.5 / 255
"""How far pixels may be from a processor's own: tensors are rounded otherwise than pictures."""


def build_hugging_face(
    name: str, published: str | None, options: dict, given: Mapping[str, Any] | None = None
) -> tuple[nn.Module, Preprocessing]:
    """Build ``hf/NAME`` from the hub, its cache, or a folder; see `loading.build`.

    The given preprocessing stands in where the processor's cannot be known. Code that comes with
    a classifier is never run.
    """
    transformers = needed("transformers", "transformers", name)
    if published not in (None, "DEFAULT"):
        raise TTAMEError(f"{name} has no weights {published!r}; expected 'DEFAULT', None or a file")
    if "num_classes" in options:  # as the other libraries call it
        options = {"num_labels": options["num_classes"], **options}
        del options["num_classes"]
    place, auto = name.removeprefix(f"{SCHEME}/"), transformers.AutoModelForImageClassification
    here, own = Path(place).is_dir(), {"trust_remote_code": False}
    if Path(place).is_absolute() and not here:
        raise TTAMEError(f"there is no folder {place} for {name}; correct the path")
    try:
        about, _ = transformers.PretrainedConfig.get_config_dict(place)
        unknown = about.get("model_type") not in transformers.CONFIG_MAPPING
        if options.get("trust_remote_code") or ("auto_map" in about and unknown):
            raise TTAMEError(
                f"code that comes with {name} ({about.get('auto_map')}) is not run here; load it yourself where you "
                "trust it, and give it to tt.Backbone(model, preprocessing=tt.Preprocessing(...))"
            )
        config, others = transformers.AutoConfig.from_pretrained(
            place, return_unused_kwargs=True, **own, **options
        )
        if published:
            model, report = auto.from_pretrained(
                place, config=config, output_loading_info=True, **own, **others
            )
            mismatched = {key for key, *_ in report["mismatched_keys"]}
            if random := sorted({*report["missing_keys"], *mismatched}):
                raise TTAMEError(
                    f"{name} holds no weights for {random[:3]} ({len(random)} in all) of {type(model).__name__}, which "
                    "would be random; give a checkpoint with a trained head, or weights=None"
                )
        else:
            model = auto.from_config(config, **own, **others)
    except OSError as error:
        if not here:  # neither cached nor to be had: `build` says so
            raise
        raise TTAMEError(
            f"{name} is no whole classifier: {error}; expected what save_pretrained writes"
        ) from error
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(place, **own)
        preprocessing = preprocessing_of(processor)
    except Exception as error:  # a foreign processor may raise anything
        if not given or not {"image_size", "resize", "mean", "std"} <= given.keys():
            missing = here and not (Path(place) / "preprocessor_config.json").is_file()
            found = f"{place} holds no preprocessor_config.json" if missing else str(error)
            raise TTAMEError(
                f"the preprocessing of {name} is not known: {found}; give load_backbone(..., preprocessing="
                "{'image_size': ..., 'resize': ..., 'interpolation': ..., 'mean': ..., 'std': ...})"
            ) from error
        preprocessing = Preprocessing(**given)
    return model.float(), preprocessing.of_size(options.get("image_size"))


def preprocessing_of(processor: Any) -> Preprocessing:
    """Find what an image processor of transformers' does, by looking at its outputs.

    Some standardise twice and some not at all, some resize by a share, and versions round margins
    as they like. A TTAMEError is raised where nothing that is known here gives what it gives.
    """

    def output(picture: Image.Image) -> Tensor:
        return processor(images=picture, return_tensors="pt")["pixel_values"][0].double()

    plain = [output(Image.new("RGB", (300, 240), shade)) for shade in ("black", "white", "red")]
    side = plain[0].shape[-1]
    black, white, red = (values[:, side // 2, side // 2] for values in plain)  # (3,) each
    mean, std = -black / (white - black), 1 / (white - black)
    statistics = tuple(mean.tolist()), tuple(std.tolist())
    bgr = bool(red[0] * std[0] + mean[0] < 0.5)
    interpolation = Image.Resampling(processor.resample).name.lower()
    for resize in _resizes(processor.size, getattr(processor, "crop_pct", None)):
        if side > (resize if isinstance(resize, int) else min(resize)):
            continue
        pictures = _pictures(resize, side)
        wanted = [output(p) * std[:, None, None] + mean[:, None, None] for p in pictures]
        for mode in ("center", "floor"):
            own = Preprocessing(side, resize, interpolation, *statistics, bgr, mode)
            found = [own.crop(p).flip(0) if bgr else own.crop(p) for p in pictures]
            pairs = zip(found, wanted, strict=True)
            if all(f.shape == w.shape and (f - w).abs().max() < LEVELS for f, w in pairs):
                return own
    raise TTAMEError(
        f"a {type(processor).__name__} of size {processor.size} resizes or crops in a way that is not known here"
    )


def _resizes(size: Any, crop_pct: float | None) -> list[Resize]:
    """List what processors of a size may resize to: as it is, squashed, or to crop a share."""
    edge = size.get("shortest_edge")
    if edge is None:
        return [(size["height"], size["width"])] if size.get("height") else []
    shares = [int(256 / 224 * edge), *([int(edge / crop_pct)] if crop_pct else [])]
    return [edge, (edge, edge), *shares]


def _pictures(resize: Resize, side: int) -> list[Image.Image]:
    """Make pictures to compare crops on: of the size that is resized to, larger, and smaller."""
    low, high = (resize, resize) if isinstance(resize, int) else resize
    if isinstance(resize, int):
        high += 4 + (3 - resize + side) % 4  # the margins' half is 1.5 px, or 3.5, and rounded
    sizes = [(low, high), (high, low), (2 * low + 61, high + 37), (low // 2 + 5, high // 3 + 7)]
    noise = np.random.default_rng(0)
    coarse = [noise.integers(0, 256, (w // 4 + 1, h // 4 + 1, 3), np.uint8) for h, w in sizes]
    return [
        # smoothly, as noise of single pixels is clipped or not by the order of rows and columns
        Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
        for pixels, size in zip(coarse, sizes, strict=True)
    ]
