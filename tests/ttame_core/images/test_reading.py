"""Transforms cut what they say."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import ttame_core as tt
from ttame_core.images.reading import Preprocessing, check_images, random_resized


def test_a_backbone_reads_files_as_its_weights_ask_for(tiny, tmp_path):
    picture = Image.fromarray(
        np.arange(20 * 30 * 3, dtype=np.uint16).astype(np.uint8).reshape(20, 30, 3)
    )
    picture.save(tmp_path / "a.png")
    image = tiny.read(tmp_path / "a.png")
    assert image.shape == (1, 3, 16, 16)
    assert torch.equal(image[0], tt.ImageFolder(tmp_path, tiny.crop)[0]["image"])
    with pytest.raises(tt.TTAMEError, match=r"b\.png is not there"):
        tiny.read(tmp_path / "b.png")


def test_transforms():
    picture = Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3))
    rng = np.random.default_rng(0)
    middle = torch.from_numpy(np.asarray(picture)[1:9, 1:9].copy()).permute(2, 0, 1) / 255
    assert torch.equal(Preprocessing(8, 10, "bicubic").crop(picture, rng), middle)
    wide = picture.resize((30, 20))
    squeezed = np.asarray(wide.resize((10, 9), Image.Resampling.BICUBIC))[:8, 1:9]
    found = Preprocessing(8, (9, 10), "bicubic").crop(
        wide, rng
    )  # height and width: proportions are given up
    assert torch.equal(found, torch.from_numpy(squeezed.copy()).permute(2, 0, 1) / 255)
    for transform in (Preprocessing(8, 10).random_crop, random_resized(8)):
        crops = [transform(picture, np.random.default_rng(i)) for i in (0, 0, 1)]
        assert crops[0].shape == (3, 8, 8)
        assert torch.equal(crops[0], crops[1])
        assert not torch.equal(crops[0], crops[2])
    assert random_resized(8)(picture.crop((0, 0, 1, 10)), rng).shape == (3, 8, 8)


def test_the_random_crop_is_a_part_of_what_the_weights_resize_to():
    picture = Image.fromarray(np.arange(12 * 9 * 3).astype(np.uint8).reshape(9, 12, 3))
    whole = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) / 255
    parts = {
        (top, left): whole[:, top : top + 8, left : left + 8]
        for top in range(2)
        for left in range(5)
    }
    found = set()
    for seed in range(60):
        crop = Preprocessing(8, 9).random_crop(picture, np.random.default_rng(seed))
        found |= {where for where, part in parts.items() if torch.equal(part, crop)}
    assert found == set(parts)  # every part, the last row and column included


@pytest.mark.parametrize(("mode", "colour"), [("pad", (0, 0, 0)), ("border", (128, 51, 26))])
def test_a_picture_that_is_smaller_than_the_crop_gets_a_frame_of_one_colour(mode, colour):
    mean = (0.5, 0.2, 0.1)
    white = Image.new("RGB", (4, 4), "white")
    rng = np.random.default_rng(0)
    for given in (
        Preprocessing(10, 4, mean=mean, crop_mode=mode),
        Preprocessing(10, 4, mean=mean[::-1], bgr=True, crop_mode=mode),
    ):
        for crop in (given.crop(white), given.random_crop(white, rng)):
            pixels = (crop * 255).round().int()
            assert (pixels[:, 3:7, 3:7] == 255).all()
            frame = [*pixels[:, :3].flatten(1).unbind(1), *pixels[:, :, 7:].flatten(1).unbind(1)]
            assert {tuple(pixel.tolist()) for pixel in frame} == {colour}


@pytest.mark.happens(
    "Preprocessing and labels",
    "a photograph of 1 x 5000 pixels",
    "refused: cut a part out",
)
@pytest.mark.parametrize("size", [(1, 5000), (5000, 1)])
def test_a_picture_too_narrow_for_a_square_is_refused(size):
    picture, rng = Image.new("RGB", size), np.random.default_rng(0)
    for given in (Preprocessing(8, 8), Preprocessing(8, 8, crop_mode="border")):
        for crop in (given.crop, given.random_crop):
            with pytest.raises(tt.TTAMEError, match=r"5000.* px is too narrow .* cut a part out"):
                crop(picture, rng)
    assert Preprocessing(8, (8, 8)).crop(picture).shape == (3, 8, 8)  # squashed


@pytest.mark.happens(
    "Preprocessing and labels",
    "a size, filter, mode, mean or deviation that makes no sense",
    "refused where it is made",
)
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 0}, "image_size of a preprocessing is 0; expected at least 1"),
        ({"image_size": 224.5}, "'float' object .*; expected sizes in whole pixels"),
        (
            {"image_size": 448},
            "resize of a preprocessing is 256; expected at least image_size, 448",
        ),
        ({"resize": (256, 200)}, r"resize of a preprocessing is \(256, 200\); expected at least"),
        ({"resize": -256}, "resize of a preprocessing is -256"),
        ({"resize": (256, 256, 256)}, "expected pixels, one or two"),
        (
            {"interpolation": ["bicubic"]},
            "interpolation of a preprocessing is .*valid|did you mean",
        ),
        ({"resize": "256"}, "expected sizes in whole pixels"),
        ({"interpolation": "cubic"}, "interpolation .* 'cubic'; did you mean 'bicubic'"),
        ({"crop_mode": "centre"}, "crop_mode .* 'centre'; did you mean 'center'"),
        ({"mean": (123.7, 116.3, 103.5)}, "mean .*expected three of .*divide those of 0-255"),
        ({"mean": (0.5, 0.5)}, "mean .*expected three"),
        ({"mean": 0.5}, "mean and std of three numbers each"),
        ({"std": (0.2, 0.0, 0.2)}, "std .*expected three above 0"),
        ({"std": (0.2, float("nan"), 0.2)}, "std .*expected three above 0"),
        ({"std": (58, 57, 57)}, "std .*expected three above 0 and at most 10.*divide those of"),
        ({"bgr": "no"}, "bgr of a preprocessing is 'no'; expected True or False"),
        ({"image_size": True}, "True and False are no sizes; expected sizes in whole pixels"),
        ({"resize": (256, True)}, "True and False are no sizes; expected sizes in whole pixels"),
    ],
)
def test_a_preprocessing_that_makes_no_sense_is_refused_when_it_is_made(fields, message):
    with pytest.raises(tt.TTAMEError, match=message):
        Preprocessing(**fields)


def test_equal_preprocessings_are_equal_whatever_their_numbers_are_written_as():
    plain = Preprocessing(8, (9, 10), mean=(0.0, 0.5, 1.0), std=(1.0, 1.0, 1.0))
    other = Preprocessing(np.int64(8), [9, 10], mean=np.array([0, 0.5, 1]), std=[1, 1, 1])
    assert other == plain and repr(other) == repr(plain)


def test_a_preprocessing_for_another_size_keeps_its_proportions():
    assert Preprocessing(224, 256).of_size(448) == Preprocessing(448, 512)
    assert Preprocessing(8, (10, 12)).of_size((16, 16)) == Preprocessing(16, (20, 24))
    assert Preprocessing(224, 256).of_size(None) == Preprocessing(224, 256)
    for size in ((3, 64, 32), "64", 64.0):
        with pytest.raises(tt.TTAMEError, match=r"the image size is .*expected one number"):
            Preprocessing().of_size(size)


@pytest.mark.parametrize("value", [1 / 255, 1.0, 0.2683])
def test_deviations_that_are_published_are_taken(value):
    assert Preprocessing(std=(value,) * 3).std == (value,) * 3


@pytest.mark.happens("Images and classes", "images are {name}", "refused: “{message}”")
@pytest.mark.parametrize(
    ("name", "images", "message"),
    [
        ("on the meta device", torch.rand(1, 3, 4, 4, device="meta"), "without values"),
        ("sparse", torch.rand(1, 3, 4, 4).to_sparse(), r"sparse or nested; .*images.to_dense\(\)"),
        ("floats of 8 bits", torch.rand(1, 3, 4, 4).to(torch.float8_e4m3fn), "float8_e4m3fn"),
    ],
)
def test_tensors_whose_values_cannot_be_looked_at_are_no_images(name, images, message):
    with pytest.raises(tt.TTAMEError, match=message):
        check_images(images)


@pytest.mark.happens("Files", "an image is to be read from {name}", "{message}")
@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("None", None, "an image to be read is None; expected the path of an image file"),
        (
            "bytes",
            b"\x89PNG",
            "an image to be read is a bytes; .*write what is in memory to a file",
        ),
        ("a file object", io.BytesIO(), "an image to be read is a BytesIO; expected the path"),
        ("a number", 0, "an image to be read is 0; expected the path of an image file"),
    ],
)
def test_what_is_no_path_is_not_read(name, given, message):
    with pytest.raises(tt.TTAMEError, match=message):
        tt.read_image(given)
