"""Image files of any mode, decoded to RGB, or an error that says what is wrong with one."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from ttame_core.errors import TTAMEError, check_kind
from ttame_core.images.tars import from_tar

PHOTOGRAPHS = (
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".j2k", ".jfif", ".jp2"),
    *(".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".jxl", ".mpo", ".pbm", ".pcx", ".pfm", ".pgm"),
    *(".png", ".pnm", ".ppm", ".psd", ".qoi", ".tga", ".tif", ".tiff", ".webp"),
)
"""Suffixes of pictures, as far as Pillow decodes them: no documents, films, icons or arrays."""
NEVER_DECODED = (
    *(".arw", ".cr2", ".cr3", ".dng", ".exr", ".hdr", ".ico", ".nef", ".orf", ".raf", ".rw2"),
    *(".heics", ".svg", ".xcf"),
)
"""Suffixes of other pictures: of cameras' raw data, icons, drawings, light in floats."""
DECODERS = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "pillow-heif"),
    **{".jxl": "pillow-jxl-plugin", ".avif": "'pillow>=11.3'"},
}
"""What to install for a suffix that Pillow may not decode."""
BUILT_IN = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}
"""Formats that Pillow registers whether or not it was built with them, and how it calls them."""
BITS, COMPRESSION, PHOTOMETRIC, PLANES = 258, 259, 262, 284
SAMPLE_FORMAT, LEAST, MOST = 339, 340, 341  # tags of TIFF; the last two: SMin-, SMaxSampleValue
DOUBTFUL = 8  # a picture whose brightest value is under this part of white has fewer bits, or units
AS_8_BIT = "save it as 8-bit PNG or JPEG, scaled as it should be seen"


def printable(text: object) -> str:
    """Escape what a terminal would obey or could not show: control characters, stray bytes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


@lru_cache(1)
def _plug_in() -> None:
    """Register the decoders that are installed beside Pillow."""
    with suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()
    with suppress(ImportError):
        import_module("pillow_jxl")  # registers itself


def decoded_suffixes() -> dict[str, str]:
    """Return those of `PHOTOGRAPHS` that can be decoded here, with Pillow's name of the format."""
    _plug_in()
    Image.init()
    lacking = {name for name, feature in BUILT_IN.items() if not features.check(feature)}
    formats = Image.OPEN.keys() - lacking
    known = Image.registered_extensions() | {".mpo": "JPEG"}  # whose decoder reads them
    return {suffix: known[suffix] for suffix in PHOTOGRAPHS if known.get(suffix) in formats}


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """Open an image file, whose header is read; its pixels may be decoded in the block.

    Raises a TTAMEError that names the file for whatever goes wrong here or in the block.
    """
    expected = "the path of an image file (str or Path); write what is in memory to a file first"
    check_kind("an image to be read", path, (str, os.PathLike), expected)
    try:
        packed = from_tar(path)
        if packed is None:
            _check_file(os.stat(path))
        # formats: Pillow would run Ghostscript on a photograph that is PostScript within
        formats = sorted({*decoded_suffixes().values()})
        with packed or nullcontext(), Image.open(packed or path, formats=formats) as file:
            if not all(file.size):
                raise ValueError(f"{file.width} x {file.height} pixels")
            yield file
    except Exception as error:  # decoders of damaged files raise anything
        raise TTAMEError(f"{printable(path)} {printable(_fault(path, error))}") from error


def _check_file(found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise TTAMEError("is a folder; expected an image file: correct the path")
    if not stat.S_ISREG(found.st_mode):  # opening it might wait for ever
        raise TTAMEError("is a pipe, a socket or a device; expected an image file: remove it")
    if not found.st_size:
        raise TTAMEError("is empty (0 bytes); remove it or put a whole one in its place")


def _fault(path: str | Path, error: Exception) -> str:
    """Say what is wrong with a file, and what to do about it."""
    suffix, decoded = Path(path).suffix.lower(), decoded_suffixes()
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    remedy = "remove it, or save a whole one as 8-bit PNG or JPEG"
    if isinstance(error, TTAMEError):
        return str(error)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        where = f"a link to {os.readlink(path)}, which is " if os.path.islink(path) else ""
        return f"is {where}not there; expected an image file: correct the path"
    if isinstance(error, PermissionError):
        return f"may not be read ({error.strerror}); change its permissions, or leave it out"
    if isinstance(error, Image.DecompressionBombError):
        most = f"{2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
        return f"is larger than {most}; make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS"
    if isinstance(error, UnidentifiedImageError):
        what = f"none of a kind that is decoded here: {', '.join(sorted({*decoded.values()}))}"
        if suffix in DECODERS.keys() - decoded:
            remedy = f"pip install {DECODERS[suffix]}, or {remedy}"
    return f"cannot be read as an image ({what}); {remedy}"


def read_image(path: str | Path) -> Image.Image:
    """Decode an image of any mode to RGB.

    Parameters
    ----------
    path : str or Path
        Greyscale, palette, integer and float images are converted, transparency is laid on white,
        and the camera's orientation is applied. Of an animation the first picture is taken.

    Returns
    -------
    Image
        RGB, 8 bits a channel.

    Raises
    ------
    TTAMEError
        If the file is missing, no readable image or too large, or if its values have more than 8
        bits and neither the file nor their range says which of them is white.
    """
    with opened(path) as file:
        tags = getattr(file, "tag_v2", {})  # TIFF's
        bits = max(tags.get(BITS, (8,)))
        if tags.get(PLANES) == 2 and bits > 8 and tags.get(COMPRESSION, 1) == 1:
            raise ValueError(f"{bits}-bit colours in planes, which Pillow takes for 8-bit ones")
        deep = bits > 8 or ";16" in str(getattr(file, "tile", ""))
        file.load()
        ImageOps.exif_transpose(file, in_place=True)  # most need no turning, and no copy
        picture: Image.Image = file
        if picture.mode.startswith("I") or picture.mode == "F":
            return _scaled(picture, tags).convert("RGB")
        if picture.mode == "La":  # of premultiplied modes Pillow converts each to one other alone
            picture = picture.convert("LA")
        colours = [band for band in picture.getbands() if band not in ("A", "a")]
        # of 16 bits Pillow keeps the upper 8
        if deep and np.asarray(picture)[..., : len(colours)].max() < 256 / DOUBTFUL:
            raise TTAMEError(f"leaves the upper bits of its colours empty; {AS_8_BIT}")
        if len(colours) < len(picture.getbands()) or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture)
        return picture if picture.mode == "RGB" else picture.convert("RGB")


def _scaled(picture: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """Scale greys of more than 8 bits, or floats, to 8 bits: by what the file says, or their range.

    Raises a TTAMEError where neither leaves no doubt.
    """
    bits, signed = tags.get(BITS, (16,))[0], tags.get(SAMPLE_FORMAT, (1,))[0] == 2
    raw = np.asarray(picture)  # (H, W); Pillow takes unsigned integers of 32 bits for signed ones
    unsigned = picture.mode == "I" and bits == 32 and not signed
    values = (raw.view(np.uint32) if unsigned else raw).astype(np.float64)
    finite = values[np.isfinite(values)]
    lowest, highest = (finite.min(), finite.max()) if finite.size else (np.nan, np.nan)
    black, white, told = 0.0, np.nan, "does not say what is white"
    if MOST in tags:
        black, white = float(tags.get(LEAST, (0,))[0]), float(tags[MOST][0])
        told = f"says that they go from {black:g} to {white:g}"
    elif bits == 12:
        white = 4095.0
    else:
        integers = (255, 32767 if signed and bits == 16 else 65535)
        usual = (1, 255) if picture.mode == "F" else integers
        white = next((float(most) for most in usual if highest <= most), np.nan)
        white = white if highest == 0 or highest >= white / DOUBTFUL else np.nan
    if not (finite.size == values.size and black <= lowest <= highest <= white and black < white):
        rest = "" if finite.size == values.size else ", and some that are no numbers"
        raise TTAMEError(
            f"holds values from {lowest:.6g} to {highest:.6g}{rest}, and {told}; expected floats in [0, 1] or "
            "to 255, integers that fill 8 or 16 bits, or the TIFF tags SMinSampleValue and "
            f"SMaxSampleValue: {AS_8_BIT}"
        )
    grey = 255 * (values - black) / (white - black)
    if tags.get(PHOTOMETRIC) == 0:  # white is zero, which Pillow minds in 8 bits alone
        grey = 255 - grey
    clear = picture.info.get("transparency")
    grey[values == (clear if isinstance(clear, int) else np.nan)] = 255
    return Image.fromarray(grey.round().astype(np.uint8))
