"""Splits of a folder of one's own."""

import numpy as np
import pytest
from PIL import Image

import ttame_core as tt
from ttame_book.editions.folders import open_split
from ttame_core.images.reading import Preprocessing


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
    spec, small = {"root": str(folders), "val": 8, "test": 12}, Preprocessing(8, 8)
    parts = [open_split(spec, split, folders, small) for split in ("val", "test")]
    ids = [{part[i]["id"] for i in range(len(part))} for part in parts]
    assert (len(ids[0]), len(ids[1]), len(ids[0] | ids[1])) == (8, 12, 20)
    assert "class/03.png" in ids[0] | ids[1]
    with pytest.raises(tt.TTAMEError, match="holds 20 images, 21 are asked for"):
        open_split({**spec, "test": 13}, "test", folders, small)


def test_listed_splits_are_the_lists_and_drawn_only_where_none_is_there(folders):
    lists = {"val": "val.txt", "test": "test.txt"}
    spec, small = {"root": str(folders), "lists": lists}, Preprocessing(8, 8)
    drawn = {**spec, "val": 8, "test": 12}
    assert len(open_split(drawn, "test", folders, small)) == 12
    (folders / "val.txt").write_text("03.png 5\n")
    for each in (spec, drawn):  # one of the two is there: the other is not drawn
        with pytest.raises(tt.TTAMEError, match=r"test\.txt cannot be read"):
            open_split(each, "test", folders, small)
    (folders / "test.txt").write_text("19.png 1\n07.png 0\n")
    for each in (spec, drawn):
        parts = [open_split(each, split, folders, small) for split in ("val", "test")]
        found = [[(item["id"], item["label"]) for item in part] for part in parts]
        assert found == [[("class/03.png", 5)], [("class/19.png", 1), ("class/07.png", 0)]]
        train = open_split(each, "train", folders, small)
        assert len(train) == 20 and "label" not in train[0]
    (folders / "test.txt").write_text("19.png 1\n03.png 5\n")
    with pytest.raises(tt.TTAMEError, match=r"1 images are in both .*, the first '03\.png'"):
        open_split(spec, "val", folders, small)


def test_photographs_of_the_crops_size_are_tested_as_they_are(folders):
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    for i in range(20):
        Image.fromarray(pixels).save(folders / "val" / "class" / f"{i:02d}.png")
    spec = {"root": str(folders), "val": 8, "test": 12}
    test = open_split(spec, "test", folders, Preprocessing(8, 10))
    assert np.array_equal((test[0]["image"] * 255).round().byte().permute(1, 2, 0), pixels)


@pytest.mark.happens(
    "Files",
    "a photograph, or its folder, is in `train/` and by a link in `val/` too",
    "refused: other photographs to train on and to test on",
)
@pytest.mark.parametrize("link", ["a folder", "a file", "all of it"])
def test_no_image_is_trained_on_and_tested_on(folders, link):
    target = {"a folder": "class", "a file": "class/03.png", "all of it": ""}[link]
    place = folders / "val" / "more.png" if link != "all of it" else folders / "val"
    if link == "all of it":
        (folders / "val").rename(folders / "before")
    place.symlink_to(folders / "train" / target)
    spec = {"root": str(folders), "val": 8, "test": 12}
    count = {"a folder": 20, "a file": 1, "all of it": 20}[link]
    with pytest.raises(tt.TTAMEError, match=f"^{count} of 20 images to train on.*remove the links"):
        open_split(spec, "train", folders, Preprocessing(8, 8))
