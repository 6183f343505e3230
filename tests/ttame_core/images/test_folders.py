"""Folders of images, and choices of them."""

import itertools

import numpy as np
import pytest
from PIL import Image

import ttame_core as tt
from ttame_core.images.folders import evenly, find_photos
from ttame_core.images.reading import centre_crop


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


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(tt.TTAMEError, match="no image folder"):
        tt.ImageFolder(tmp_path / "nowhere", centre_crop(8, 8))
    with pytest.raises(tt.TTAMEError, match=r"no images in .*\.jpg"):
        tt.ImageFolder(tmp_path, centre_crop(8, 8))


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
    parts = [evenly(range(size), count).indices for count in (5, 15, 20, 1000)]
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


def test_an_unreadable_photograph_is_named(photos):
    (photos / "broken.png").write_bytes(b"no picture")
    with pytest.raises(tt.TTAMEError, match=r"broken\.png cannot be read"):
        find_photos([photos])
