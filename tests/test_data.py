"""Images: the demo's digits and photographs, folders, and files of every kind."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

import ttame_core as tt
from ttame_core.data import (
    SPLITS,
    centre_crop,
    folder_split,
    random_crop_of,
    random_resized,
    spread,
)
from ttame_core.wheels import _digit_indices, _strip, photographs_in_wheels


def test_digits_are_the_same_from_the_same_seed_whatever_the_size():
    small, large = tt.DigitsInPhotographs("val", 5), tt.DigitsInPhotographs("val", 9)
    assert torch.equal(small.compose(slice(0, 5)), large.compose(slice(0, 5)))
    assert torch.equal(small.labels, large.labels[:5])
    other = tt.DigitsInPhotographs("val", 5, seed=1)
    assert not torch.equal(small.compose(slice(0, 5)), other.compose(slice(0, 5)))


def test_splits_share_neither_digits_nor_regions():
    indices = {split: set(_digit_indices(split).tolist()) for split in SPLITS}
    assert sum(map(len, indices.values())) == 1797 == len(set.union(*indices.values()))
    for photograph in photographs_in_wheels():
        columns = np.broadcast_to(
            np.arange(photograph.width)[None, :, None], (1, photograph.width, 1)
        )
        strips = [set(_strip(columns, split).flatten().tolist()) for split in SPLITS]
        assert sum(map(len, strips)) == photograph.width == len(set.union(*strips))


def test_the_mask_is_where_the_digit_is():
    digits = tt.DigitsInPhotographs("test", 40)
    images = digits.compose(slice(0, 40))
    backgrounds = digits.backgrounds.float() / 255
    changed = (images - backgrounds).abs().amax(1) > 0.02
    outside = digits.opacity == 0
    assert not changed[outside].any()
    assert changed[digits.masks].float().mean() > 0.95
    share = digits.masks.float().mean((1, 2))
    assert share.min() > 0.01 and share.max() < 0.25
    assert images.min() >= 0 and images.max() <= 1


def test_items_and_the_fade():
    digits = tt.DigitsInPhotographs("train", 3)
    item = digits[1]
    assert item["image"].shape == (3, 64, 64)
    assert item["mask"].dtype == torch.bool
    assert item["id"] == "digits-train-00001"
    flat = digits.compose(slice(0, 3), fade=0.0)
    outside = digits.opacity[0] == 0
    assert flat[0][:, outside].std(1).max() < 1e-6


def test_photographs_of_the_splits_are_others_and_crops_change_by_epoch():
    ids = {s: {i["id"].rsplit("-", 1)[0] for i in tt.WheelPhotographs(s)} for s in ("val", "test")}
    train = tt.WheelPhotographs("train", 40)
    ids["train"] = {train[i]["id"].rsplit("-", 1)[0] for i in range(40)}
    assert [len(ids[s]) for s in SPLITS] == [19, 4, 8]
    assert not (ids["train"] & ids["val"] or ids["train"] & ids["test"] or ids["val"] & ids["test"])
    first = train[3]["image"]
    assert torch.equal(first, train[3]["image"])
    train.set_epoch(1)
    assert not torch.equal(first, train[3]["image"])


@pytest.mark.parametrize("maker", [tt.DigitsInPhotographs, tt.WheelPhotographs])
def test_an_unknown_split(maker):
    with pytest.raises(tt.TTAMEError, match="did you mean 'train'"):
        maker("trains")


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


def test_an_unreadable_image_is_named_or_skipped_and_counted(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(tt.TTAMEError, match=r"bad\.jpg"):
        tt.ImageFolder(tmp_path, centre_crop(8, 8))
    with pytest.warns(UserWarning, match=r"1 of 2 images .* are left out: bad\.jpg"):
        folder = tt.ImageFolder(tmp_path, centre_crop(8, 8), on_error="skip")
    assert (len(folder), folder.skipped) == (1, ["bad.jpg"])
    with pytest.raises(tt.TTAMEError, match=r"bad\.jpg"):
        tt.read_image(tmp_path / "bad.jpg")
    (tmp_path / "good.png").unlink()
    with pytest.raises(tt.TTAMEError, match="none of the 1 images"):
        tt.ImageFolder(tmp_path, centre_crop(8, 8), on_error="skip")


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


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(tt.TTAMEError, match="no image folder"):
        tt.ImageFolder(tmp_path / "nowhere", centre_crop(8, 8))
    with pytest.raises(tt.TTAMEError, match=r"no images in .*\.jpg"):
        tt.ImageFolder(tmp_path, centre_crop(8, 8))


@pytest.fixture
def folders(tmp_path):
    """20 one-colour images in train/ and in val/."""
    for part in ("train", "val"):
        (tmp_path / part / "class").mkdir(parents=True)
        for i in range(20):
            picture = Image.new("RGB", (12, 10), (i * 10, 0, 0))
            picture.save(tmp_path / part / "class" / f"{i:02d}.png")
    return tmp_path


def test_val_and_test_are_disjoint_draws(folders):
    spec, crop = {"root": str(folders), "val": 8, "test": 12}, (8, 8, "bilinear")
    parts = [folder_split(spec, split, folders, *crop) for split in ("val", "test")]
    ids = [{part[i]["id"] for i in range(len(part))} for part in parts]
    assert (len(ids[0]), len(ids[1]), len(ids[0] | ids[1])) == (8, 12, 20)
    assert "class/03.png" in ids[0] | ids[1]
    with pytest.raises(tt.TTAMEError, match="holds 20 images, 21 are asked for"):
        folder_split({**spec, "test": 13}, "test", folders, *crop)


def test_folders_of_imagenet_classes_give_labels(tmp_path):
    for name in ("n02102040", "n01440764"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    images = tt.ImageFolder(tmp_path, centre_crop(8, 8))
    assert [item["label"] for item in images] == [0, 217]  # tench, English springer
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    assert not any("label" in item for item in tt.ImageFolder(tmp_path, centre_crop(8, 8)))


@pytest.mark.parametrize("size", [24, 300, 501])
def test_fewer_images_are_among_more_and_evenly_spread(size):
    parts = [spread(range(size), count).indices for count in (5, 15, 20, 1000)]
    assert [len(part) for part in parts] == [5, 15, 20, size]
    assert all(set(a) <= set(b) for a, b in itertools.pairwise(parts))
    for part in parts:
        gaps = np.diff([*part, part[0] + size])
        assert gaps.max() <= 3 * size / len(part)
    assert parts[-1] == list(range(size))


def test_links_to_folders_are_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "more").symlink_to(tmp_path / "elsewhere")
    images = tt.ImageFolder(tmp_path / "root", centre_crop(8, 8))
    assert [item["id"] for item in images] == ["more/a.png"]


def test_transforms(folders):
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
