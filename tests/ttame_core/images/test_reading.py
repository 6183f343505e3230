"""Pictures of every kind become RGB; transforms cut what they say."""

import numpy as np
import pytest
import torch
from PIL import Image

import ttame_core as tt
from ttame_core.images.reading import centre_crop, random_crop_of, random_resized


def pixel(path):
    return tt.read_image(path).getpixel((0, 0))


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
    assert torch.equal(centre_crop(8, 10)(picture, rng), middle)
    cropped = picture.crop((1, 1, 9, 9))  # of the wanted size already: as it is
    assert torch.equal(centre_crop(8, 10)(cropped, rng), middle)
    wide = picture.resize((30, 20))
    squeezed = np.asarray(wide.resize((10, 9), Image.Resampling.BICUBIC))[:8, 1:9]
    found = centre_crop(8, (9, 10))(wide, rng)  # height and width: proportions are given up
    assert torch.equal(found, torch.from_numpy(squeezed.copy()).permute(2, 0, 1) / 255)
    for transform in (random_crop_of(8, 10), random_resized(8)):
        crops = [transform(picture, np.random.default_rng(i)) for i in (0, 0, 1)]
        assert crops[0].shape == (3, 8, 8)
        assert torch.equal(crops[0], crops[1])
        assert not torch.equal(crops[0], crops[2])
