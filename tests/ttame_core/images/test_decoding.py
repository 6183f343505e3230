"""Image files of every mode become RGB, or an error in words that name the file."""

import os
import socket
import sys
import types

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile, features

import ttame_core as tt
from ttame_core.images import decoding
from ttame_core.images.decoding import decoded_suffixes, printable

RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)


def pixel(path):
    return tt.read_image(path).getpixel((0, 0))


def saved(folder, values, **options):
    """A TIFF of one channel, or of three."""
    file = folder / "a.tif"
    options = {"photometric": "rgb" if values.ndim == 3 else "minisblack", **options}
    tifffile.imwrite(file, values, **options)
    return file


def brightness(file):
    return np.asarray(tt.read_image(file))[..., 0].astype(float)


def test_every_kind_of_image_becomes_rgb(tmp_path):
    Image.new("L", (4, 4), 100).save(tmp_path / "grey.png")
    assert pixel(tmp_path / "grey.png") == (100, 100, 100)
    Image.fromarray(np.full((4, 4), 257 * 100, np.uint16)).save(tmp_path / "deep.png")
    assert pixel(tmp_path / "deep.png") == (100, 100, 100)
    Image.new("RGBA", (4, 4), (200, 0, 0, 0)).save(tmp_path / "clear.png")
    assert pixel(tmp_path / "clear.png") == (255, 255, 255)
    Image.new("LA", (4, 4), (10, 255)).save(tmp_path / "opaque.png")
    assert pixel(tmp_path / "opaque.png") == (10, 10, 10)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "palette.png")
    assert pixel(tmp_path / "palette.png") == (10, 20, 30)
    palette.save(tmp_path / "transparent.png", transparency=1)
    assert pixel(tmp_path / "transparent.png") == (255, 255, 255)
    Image.new("CMYK", (4, 4), (0, 0, 0, 255)).save(tmp_path / "print.jpg")
    assert max(pixel(tmp_path / "print.jpg")) < 10


@pytest.mark.happens(
    "Files",
    "CMYK, LAB, YCbCr, palettes, one bit",
    "the right colour",
)
@pytest.mark.parametrize("name", ["1", "L", "LA", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"])
def test_a_colour_is_the_same_in_every_mode_of_tiff(name, tmp_path):
    colour = (255, 255, 255) if name == "1" else (120, 120, 120)
    if name == "LAB":  # a lightness, and a and b of no colour
        picture = Image.merge("LAB", [Image.new("L", (4, 4), v) for v in (128, 128, 128)])
    elif name == "PA":
        picture = Image.new("PA", (4, 4), (1, 255))
        picture.putpalette([0, 0, 0, *colour])
    else:
        picture = Image.new("RGB", (4, 4), colour).convert(name)
    picture.save(tmp_path / "a.tif")
    assert Image.open(tmp_path / "a.tif").mode == ("RGB" if name == "RGBX" else name)
    assert np.allclose(pixel(tmp_path / "a.tif"), colour, atol=3)


@pytest.mark.happens(
    "Files",
    "premultiplied transparency",
    "laid on white",
)
def test_premultiplied_transparency_is_laid_on_white(tmp_path):
    half = np.full((4, 4, 2), (60, 128), np.uint8)  # grey 120, half covering
    file = saved(tmp_path, half, photometric="minisblack", planarconfig="contig", extrasamples=[1])
    assert Image.open(file).mode == "La"
    assert np.allclose(pixel(file), 188, atol=2)
    half = np.full((4, 4, 4), (60, 30, 0, 128), np.uint8)
    file = saved(tmp_path, half, extrasamples=[1])
    assert np.allclose(pixel(file), (188, 157, 127), atol=2)


def test_a_grey_that_is_transparent_is_white(tmp_path):
    values = np.full((4, 4), 257 * 100, np.uint16)
    values[0, 0] = 257 * 200
    Image.fromarray(values).save(tmp_path / "a.png", transparency=257 * 200)
    assert brightness(tmp_path / "a.png")[0, :2].tolist() == [255, 100]


SAID = {"extratags": [(340, "H", 1, 0, True), (341, "H", 1, 4095, True)]}
SIGNED = {"extratags": [(340, "f", 1, -1.0, True), (341, "f", 1, 1.0, True)]}


@pytest.mark.happens(
    "Files",
    "floats, integers of 16 bits, tags of the least and most value",
    "scaled by what the file says",
)
@pytest.mark.parametrize(
    ("kind", "low", "high", "options"),
    [
        ("f4", 0, 1, {}),
        ("f4", 0, 255, {}),
        ("f4", -1, 1, SIGNED),
        ("u2", 0, 255, {}),
        ("u2", 0, 65535, {}),
        (">u2", 0, 65535, {"byteorder": ">"}),
        ("u2", 0, 4095, SAID),
        ("i2", 0, 32767, {}),
        ("i4", 0, 255, {}),
        ("i4", 0, 65535, {}),
        ("u4", 0, 255, {}),
    ],
)
def test_greys_are_scaled_by_what_the_file_says_or_a_range_without_doubt(
    kind, low, high, options, tmp_path
):
    file = saved(tmp_path, (low + RAMP * (high - low)).astype(kind), **options)
    assert np.abs(brightness(file) - 255 * RAMP).max() < 1.01


@pytest.mark.happens(
    "Files",
    "values of which nothing says what is white",
    "refused, with their range and a remedy",
)
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (RAMP * 0.1, r"from 0 to 0\.1, .*expected floats in \[0, 1\].*save it as 8-bit"),
        (RAMP * 3, "from 0 to 3, "),  # degrees, metres?
        (RAMP * 4000, "from 0 to 4000, "),
        (RAMP - 0.5, r"from -0\.5 to 0\.5, "),
        (np.where(RAMP > 0.5, np.nan, RAMP), r"from 0 to 0\.\d+, and some that are no numbers, "),
        (np.where(RAMP > 0.5, np.inf, RAMP), r"from 0 to 0\.\d+, and some that are no numbers, "),
        (np.full((4, 4), np.nan), "from nan to nan"),
        ((RAMP * 4095).astype("u2"), "from 0 to 4095, and does not say what is white"),
        ((RAMP * 4095).astype("i2"), "from 0 to 4095, "),
        ((RAMP * 4095).astype("i4"), "from 0 to 4095, "),
        ((RAMP * 20).astype("u2"), "from 0 to 20, "),  # numbers of segments?
        ((RAMP * 100 - 50).astype("i2"), "from -50 to 50, "),
        ((RAMP * 1e6).astype("i4"), "from 0 to 1e\\+06, "),
        ((RAMP * 4e9).astype("u4"), r"from 0 to 4e\+09, "),
    ],
)
def test_a_range_in_doubt_is_refused_with_the_values_and_a_remedy(values, message, tmp_path):
    file = saved(tmp_path, values.astype("f4") if values.dtype == float else values)
    with pytest.raises(tt.TTAMEError, match=r"a\.tif holds values " + message):
        tt.read_image(file)


def test_values_beyond_what_the_file_says_are_refused(tmp_path):
    file = saved(tmp_path, (RAMP * 5000).astype("u2"), **SAID)
    with pytest.raises(tt.TTAMEError, match="says that they go from 0 to 4095; expected"):
        tt.read_image(file)


@pytest.mark.happens(
    "Files",
    "a picture that is all black, in many bits",
    "black",
)
def test_a_black_picture_is_black_in_every_depth(tmp_path):
    for kind in ("u1", "u2", "i4", "f4"):
        assert not brightness(saved(tmp_path, np.zeros((4, 4), kind))).any()


@pytest.mark.happens(
    "Files",
    "greys of which zero is white",
    "the right way round",
)
def test_greys_of_which_zero_is_white_are_not_read_as_their_negative(tmp_path):
    for values in (RAMP.astype("f4"), (RAMP * 65535).astype("u2"), (RAMP * 255).astype("u1")):
        file = saved(tmp_path, values, photometric="miniswhite")
        assert np.abs(brightness(file) - 255 * (1 - RAMP)).max() < 1.01


@pytest.mark.happens(
    "Files",
    "colours of 16 bits that leave the upper ones empty",
    "refused, not nearly black",
)
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_colours_of_16_bits_are_read_where_they_fill_them(options, tmp_path):
    colour = np.stack([RAMP * 65535, RAMP * 30000, np.zeros_like(RAMP)], -1).astype("u2")
    found = np.asarray(tt.read_image(saved(tmp_path, colour, **options)))
    assert np.abs(found - colour / 257).max() < 1.01
    for high in (4095, 255):
        file = saved(tmp_path, (np.stack([RAMP] * 3, -1) * high).astype("u2"), **options)
        with pytest.raises(tt.TTAMEError, match="leaves the upper bits of its colours empty; save"):
            tt.read_image(file)
    covered = np.stack([RAMP * 4095] * 3 + [np.full_like(RAMP, 65535)], -1).astype("u2")
    with pytest.raises(tt.TTAMEError, match="upper bits"):
        tt.read_image(saved(tmp_path, covered, extrasamples=[2], **options))


@pytest.mark.happens(
    "Files",
    "deep colours in planes, which Pillow reads as stripes",
    "refused",
)
def test_deep_colours_in_planes_are_never_read_as_stripes(tmp_path):
    planes = np.stack([RAMP * 65535, RAMP * 30000, RAMP * 60000]).astype("u2")
    with pytest.raises(tt.TTAMEError, match="16-bit colours in planes"):
        tt.read_image(saved(tmp_path, planes, planarconfig="separate"))
    file = saved(tmp_path, planes, planarconfig="separate", compression="zlib")
    assert np.abs(np.asarray(tt.read_image(file)) - planes.transpose(1, 2, 0) / 257).max() < 1.01


def test_portable_maps_say_what_is_white(tmp_path):
    twelve = (RAMP * 4095).astype(">u2").tobytes()
    (tmp_path / "a.pgm").write_bytes(b"P5 64 64 4095\n" + twelve)
    assert np.abs(brightness(tmp_path / "a.pgm") - 255 * RAMP).max() < 1.01
    (tmp_path / "b.pbm").write_bytes(b"P1 2 1\n0 1\n")
    assert brightness(tmp_path / "b.pbm").tolist() == [[255, 0]]


@pytest.mark.happens(
    "Files",
    "AVIF, JFIF, JPEG 2000, PPM and the like in a folder",
    "read",
)
@pytest.mark.parametrize(
    "suffix",
    [".avif", ".jfif", ".jpe", ".jp2", ".mpo", ".pbm", ".pgm", ".pnm", ".ppm", ".qoi", ".tga"],
)
def test_formats_of_any_suffix_are_images_of_a_folder(suffix, tmp_path):
    mode = {".pbm": "1", ".pgm": "L"}.get(suffix, "RGB")
    kind = {".pbm": "PPM", ".pgm": "PPM", ".pnm": "PPM"}.get(suffix)
    Image.new(mode, (16, 16), 255 if mode != "RGB" else "white").save(tmp_path / f"a{suffix}", kind)
    Image.new("RGB", (16, 16)).save(tmp_path / "b.png")
    images = tt.ImageFolder(tmp_path, tt.Preprocessing(16, 16).crop)
    assert [item["id"] for item in images] == [f"a{suffix}", "b.png"]
    assert images[0]["image"].min() > 0.98


@pytest.mark.happens(
    "Files",
    "documents, films and arrays in a folder",
    "not read",
)
def test_documents_films_and_arrays_are_no_photographs():
    suffixes = decoded_suffixes()
    assert not suffixes.keys() & {".pdf", ".eps", ".ps", ".mpg", ".npy", ".h5", ".fits", ".ico"}
    assert {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"} <= suffixes.keys()


@pytest.mark.happens(
    "Files",
    "PostScript by the name of a photograph",
    "refused, Ghostscript is never run",
)
def test_postscript_that_is_called_a_photograph_runs_no_interpreter(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("it was run"))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", "EPS")
    with pytest.raises(tt.TTAMEError, match=r"a\.jpg cannot be read as an image \(none of a kind"):
        tt.read_image(tmp_path / "a.jpg")


@pytest.mark.happens(
    "Files",
    "HEIC",
    "read with its plug-in, else the plug-in is named",
)
def test_a_plug_in_that_is_installed_is_registered(tmp_path, monkeypatch):
    file = tmp_path / "a.heic"
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    file.write_bytes(b"\0\0\0\x18ftypheic" + file.read_bytes())
    with pytest.raises(tt.TTAMEError, match=r"a\.heic cannot be .*; pip install pillow-heif, or "):
        tt.read_image(file)

    def opener(fp, filename):
        fp.seek(12)
        return Image.open(fp)

    plug_in = types.ModuleType("pillow_heif")
    plug_in.register_heif_opener = lambda: (
        Image.register_open("HEIF", opener, lambda prefix: prefix[4:12] == b"ftypheic"),
        Image.register_extension("HEIF", ".heic"),
    )
    monkeypatch.setitem(sys.modules, "pillow_heif", plug_in)
    monkeypatch.setattr(Image, "ID", Image.ID.copy())
    monkeypatch.setattr(Image, "OPEN", Image.OPEN.copy())
    monkeypatch.setattr(Image, "EXTENSION", Image.EXTENSION.copy())
    decoding._plug_in.cache_clear()
    assert ".heic" in decoded_suffixes() and ".heif" not in decoded_suffixes()
    decoding._plug_in.cache_clear()


def test_a_format_that_pillow_was_built_without_is_not_promised(monkeypatch):
    monkeypatch.setattr(features, "check", lambda feature: feature != "webp")
    assert ".webp" not in decoded_suffixes() and ".avif" in decoded_suffixes()


@pytest.mark.happens(
    "Files",
    "200 megapixels",
    "told as too large, and not as broken",
)
def test_a_picture_that_is_too_large_is_not_called_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600_000)
    Image.new("1", (2000, 1000)).save(tmp_path / "large.png")
    message = r"large\.png is larger than 1,200,000 pixels; make it smaller, or raise PIL"
    with pytest.raises(tt.TTAMEError, match=message):
        tt.read_image(tmp_path / "large.png")
    with pytest.raises(tt.TTAMEError, match=message):
        tt.ImageFolder(tmp_path, tt.Preprocessing(16, 16).crop)


@pytest.mark.happens(
    "Files",
    "a missing file, dangling link, pipe, device, empty file, web page",
    "each in words, and nothing waits",
)
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"a\.jpg is not there; expected an image file: correct the path"),
        ("folder", r"a\.jpg is a folder; expected"),
        ("link", r"a\.jpg is a link to gone\.jpg, which is not there"),
        ("loop", r"a\.jpg cannot be read as an image \(OSError: .*symbolic links"),
        ("pipe", r"a\.jpg is a pipe, a socket or a device"),
        ("socket", r"a\.jpg is a pipe, a socket or a device"),
        ("device", r"a\.jpg is a pipe, a socket or a device"),
        ("empty", r"a\.jpg is empty \(0 bytes\); remove it"),
        ("page", r"a\.jpg cannot be read as an image \(none of a kind that is decoded here: AVIF"),
        ("half", r"a\.jpg cannot be read as an image \(OSError: "),
        ("below", r"a\.jpg/b\.jpg is not there; expected an image file: correct the path"),
    ],
)
def test_what_is_no_image_is_said_in_words(kind, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # sockets have short names
    file = tmp_path / "a.jpg"
    if kind == "folder":
        file.mkdir()
    elif kind in ("link", "loop", "device"):
        file.symlink_to({"link": "gone.jpg", "loop": "a.jpg", "device": "/dev/zero"}[kind])
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as end:
            end.bind("a.jpg")
    elif kind != "missing":
        Image.new("RGB", (64, 64)).save(file)
        whole = file.read_bytes()
        file.write_bytes({"empty": b"", "page": b"<html>", "half": whole[:-99]}.get(kind, whole))
    with pytest.raises(tt.TTAMEError, match=message):
        tt.read_image("a.jpg/b.jpg" if kind == "below" else file)


@pytest.mark.happens(
    "Files",
    "a damaged file, whatever its decoder raises",
    "refused, the file and what was found named",
)
@pytest.mark.parametrize("error", [TypeError, KeyError, MemoryError, RecursionError, EOFError])
def test_whatever_a_decoder_raises_names_the_file(error, tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def decode(*_):
        raise error("inside")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    with pytest.raises(tt.TTAMEError, match=rf"a\.png cannot be .*{error.__name__}: '?inside"):
        tt.read_image(tmp_path / "a.png")


def test_an_interruption_is_no_damaged_file(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def decode(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    with pytest.raises(KeyboardInterrupt):
        tt.read_image(tmp_path / "a.png")


def test_names_reach_a_terminal_without_what_it_obeys():
    assert printable("a\x1b[2J\nb\u202egpj\udcff.jpg") == r"a\x1b[2J\nb\u202egpj\udcff.jpg"
    assert printable("Müller 猫 🐈.jpg") == "Müller 猫 🐈.jpg"
    with pytest.raises(tt.TTAMEError, match=r"x\\x1b\[31m\.jpg is not there"):
        tt.read_image("x\x1b[31m.jpg")
