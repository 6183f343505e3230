"""Damaged files of every format give an image or the one error, in seconds.

Thousands by hand: ``python -m tests.ttame_core.images.test_damaged_files 8000 SEED``.
"""

import io
import random
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import ttame_core as tt
from ttame_core.images.decoding import decoded_suffixes, read_image

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F")
OPTIONS = (
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_deflate"}),
    ("TIFF", {"compression": "jpeg"}),
    ("TIFF", {"compression": "packbits"}),
    (
        "JPEG",
        {"progressive": True, "exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"},
    ),
    ("WEBP", {"lossless": True}),
    ("TGA", {"compression": "tga_rle"}),
    ("PNG", {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]}),
    ("GIF", {"save_all": True, "append_images": [Image.new("RGB", (24, 20), "red")]}),
    ("PNG", {"transparency": 3}),
)
MUTATED = ("PNG", "JPEG", "TIFF")
SECONDS = 5  # that a file may take; whole ones of this size take milliseconds


def whole_files():
    """Yield a suffix and the bytes of small pictures, in all modes that each format can be written in."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    pixels[5:15, 5:15] = 200  # something to compress
    suffixes = {name: suffix for suffix, name in decoded_suffixes().items()}
    plain = [(name, {}) for name in sorted(suffixes) if name in Image.SAVE]
    for name, options in [*plain, *OPTIONS]:
        for mode in MODES:
            grey = mode in ("I;16", "I", "F")
            picture = Image.fromarray(pixels).convert("L" if grey else "RGB")
            if mode == "I;16":
                picture = Image.fromarray(np.asarray(picture, dtype=np.uint16) * 257)
            elif mode == "LAB":
                picture = Image.fromarray(pixels, "RGB").convert("RGB").convert("LAB")
            else:
                picture = picture.convert(mode)
            file = io.BytesIO()
            try:
                picture.save(file, name, **options)
            except Exception:
                continue  # not a mode of this format
            yield suffixes[name], file.getvalue()


def damaged(content, others, rng):
    """Damage a file's bytes in one of six ways."""
    content, how = bytearray(content), rng.randrange(6)
    place, length = rng.randrange(len(content)), rng.randrange(1, 65)
    head = rng.random() < 0.7  # where the decoders' own logic is
    if head:
        place = rng.randrange(min(256, len(content)))
    if how == 0:
        del content[place:]
    elif how == 1:
        for _ in range(rng.randrange(1, 20)):
            content[rng.randrange(min(200, len(content)) if head else len(content))] = (
                rng.randrange(256)
            )
    elif how == 2:
        content[:length] = rng.choice(others)[:length]
    elif how == 3:
        del content[place : place + length]
    elif how == 4:
        content[place:place] = content[place : place + length]
    else:
        content[place : place + length] = bytes([rng.choice((0, 255))]) * length
    return bytes(content)


def read_damaged(count, seed, folder):
    """Read so many damaged files; count what came of them, and return what should not have."""
    rng, found, wrong = random.Random(seed), Counter(), []
    files = list(whole_files())
    contents = [content for _, content in files]
    for number in range(count):
        suffix, content = files[number % len(files)]
        file = Path(folder) / f"{number}{suffix}"
        file.write_bytes(damaged(content, contents, rng))
        began = time.process_time()  # of this process: others may keep the cores busy
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                picture = read_image(file)
            fine = picture.mode == "RGB" and all(picture.size)
            found["read"] += 1
        except tt.TTAMEError as error:
            fine = str(error).startswith(str(file))
            found[type(error.__cause__).__name__] += 1
        except Exception as error:
            fine = False
            found[f"raw {type(error).__name__}"] += 1
        if not fine or time.process_time() - began > SECONDS:
            wrong.append(file)
        else:
            file.unlink()
    return found, wrong


def test_damaged_files_give_an_image_or_the_one_error(tmp_path):
    found, wrong = read_damaged(600, 0, tmp_path)
    assert not wrong
    assert found["read"] > 60 and found.total() - found["read"] > 200, found


@pytest.fixture(scope="module")
def small():
    """Bytes of whole pictures of the three usual formats."""
    wanted = {suffix for suffix, name in decoded_suffixes().items() if name in MUTATED}
    return [content for suffix, content in whole_files() if suffix in wanted]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_bytes_give_an_image_or_the_one_error(data, small, tmp_path):
    content = bytearray(data.draw(st.sampled_from(small)))
    places = st.integers(0, len(content) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=8)):
        content[place] = value
    start, end = sorted(data.draw(st.tuples(places, places)))
    content[start:end] = data.draw(st.one_of(st.just(content[start:end]), st.binary(max_size=64)))
    file = tmp_path / "a.png"  # what a suffix says of the content is no matter
    file.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picture = read_image(file)
        except tt.TTAMEError as error:
            assert str(error).startswith(str(file))
        else:
            assert picture.mode == "RGB" and all(picture.size)


def test_what_is_damaged_is_whole_before(tmp_path):
    files = list(whole_files())
    assert len({suffix for suffix, _ in files}) >= 10
    for number, (suffix, content) in enumerate(files):
        file = tmp_path / f"{number}{suffix}"
        file.write_bytes(content)
        assert read_image(file).size == (24, 20), file


if __name__ == "__main__":
    with TemporaryDirectory() as place:
        began = time.perf_counter()
        counts, files = read_damaged(int(sys.argv[1]), int((*sys.argv, "0")[2]), place)
        print(f"{counts.total()} files in {time.perf_counter() - began:.0f} s: {dict(counts)}")
        for file in files:
            print("wrong:", file.name, file.read_bytes()[:64])
    sys.exit(bool(files))
