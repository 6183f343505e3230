"""Folders of images, and choices of them."""

import itertools
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms
from torchvision.transforms import v2

import ttame_core as tt
from tests.commands import ROOT
from ttame_core.images.folders import check_writable, evenly, find_photos, read_list
from ttame_core.images.listing import image_files
from ttame_core.images.reading import Preprocessing


def test_an_unreadable_image_is_named_or_skipped_and_counted(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(tt.TTAMEError, match=r"bad\.jpg"):
        tt.ImageFolder(tmp_path, Preprocessing(8, 8).crop)
    with pytest.warns(UserWarning, match=r"1 of 2 images .* are left out: bad\.jpg"):
        folder = tt.ImageFolder(tmp_path, Preprocessing(8, 8).crop, on_error="skip")
    assert (len(folder), folder.skipped) == (1, ["bad.jpg"])
    with pytest.raises(tt.TTAMEError, match=r"bad\.jpg"):
        tt.read_image(tmp_path / "bad.jpg")
    (tmp_path / "good.png").unlink()
    with pytest.raises(tt.TTAMEError, match="none of the 1 images"):
        tt.ImageFolder(tmp_path, Preprocessing(8, 8).crop, on_error="skip")


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(tt.TTAMEError, match="no image folder"):
        tt.ImageFolder(tmp_path / "nowhere", Preprocessing(8, 8).crop)
    with pytest.raises(tt.TTAMEError, match=r"no images in .*\.jpg"):
        tt.ImageFolder(tmp_path, Preprocessing(8, 8).crop)


def test_folders_of_imagenet_classes_give_labels(tmp_path):
    for name in ("n02102040", "n01440764"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    images = tt.ImageFolder(tmp_path, Preprocessing(8, 8).crop)
    assert [item["label"] for item in images] == [0, 217]  # tench, English springer
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    assert not any("label" in item for item in tt.ImageFolder(tmp_path, Preprocessing(8, 8).crop))


@pytest.mark.parametrize("layout", ["flat", "folders of classes"])
def test_listed_images_are_found_by_name_and_have_the_lists_classes(layout, tmp_path):
    for i, wnid in enumerate(["n01440764", "n02102040", "n02102040"]):
        folder = tmp_path / "val" / ("" if layout == "flat" else wnid)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i}.png")
    (tmp_path / "list.txt").write_text("2.png 7 \n\n0.png\t999\n")
    listed = read_list(tmp_path / "list.txt")
    assert list(listed.items()) == [("2.png", 7), ("0.png", 999)]
    images = tt.ImageFolder(tmp_path / "val", Preprocessing(8, 8).crop, listed=listed)
    red = [round(float(item["image"][0, 0, 0]) * 255) for item in images]
    assert [(name, item["label"]) for name, item in zip(red, images, strict=True)] == [
        (2, 7),
        (0, 999),
    ]


@pytest.mark.happens(
    "Files",
    "a list of images with a line that is malformed, doubled, or of an image that is missing",
    "refused; the line or the image is named",
)
@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("a.png 1\na.png 2\n", r"list\.txt, line 2 names a\.png again"),
        ("a.png\n", r"list\.txt, line 1 is 'a\.png'; expected a file's name and its class"),
        ("a.png one\n", r"line 1 is 'a\.png one'"),
        ("a.png -1\n", r"line 1 is 'a\.png -1'"),
        ("\nval/a.png 1\n", r"line 2 is 'val/a\.png 1'"),
        ("\n", r"list\.txt is empty"),
        ("a.png 1\nc.png 3\n", r"1 of 2 listed images are not in .*, the first 'c\.png'"),
        ("b.png 1\n", r"listed image 'b\.png' is in .* more than once: .*b\.png, .*one/b\.png"),
    ],
)
def test_a_list_that_cannot_be_followed_names_the_line_or_the_image(lines, told, tmp_path):
    (tmp_path / "val" / "one").mkdir(parents=True)
    for name in ("a.png", "b.png", "one/b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "val" / name)
    (tmp_path / "list.txt").write_text(lines)
    with pytest.raises(tt.TTAMEError, match=told):
        listed = read_list(tmp_path / "list.txt")
        tt.ImageFolder(tmp_path / "val", Preprocessing(8, 8).crop, listed=listed)
    with pytest.raises(tt.TTAMEError, match=r"none\.txt cannot be read"):
        read_list(tmp_path / "none.txt")


def test_the_papers_own_lists_are_read():
    lists = ROOT.parent / "shared" / "data" / "lists"
    if not lists.is_dir():
        pytest.skip(f"the paper's lists are not in {lists}")
    val, test = (read_list(lists / f"{part}_2000.txt") for part in ("Validation", "Evaluation"))
    assert (len(val), len(test)) == (2000, 2000) and not val.keys() & test.keys()
    assert {*val.values(), *test.values()} <= {*range(1000)}
    assert next(iter(test.items())) == ("ILSVRC2012_val_00010011.JPEG", 248)
    assert next(iter(val.items())) == ("ILSVRC2012_val_00029767.JPEG", 332)


@pytest.mark.parametrize("size", [24, 300, 501])
def test_fewer_images_are_among_more_and_evenly_spread(size):
    parts = [evenly(range(size), count).indices for count in (5, 15, 20, 1000)]
    assert [len(part) for part in parts] == [5, 15, 20, size]
    assert all(set(a) <= set(b) for a, b in itertools.pairwise(parts))
    for part in parts:
        gaps = np.diff([*part, part[0] + size])
        assert gaps.max() <= 3 * size / len(part)
    assert parts[-1] == list(range(size))


def picture(*files):
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "PNG")


def ids(folder, **options):
    images = tt.ImageFolder(folder, Preprocessing(8, 8).crop, **options)
    return [item["id"] for item in images]


@pytest.mark.happens(
    "Files",
    "links to what lies elsewhere",
    "followed",
)
def test_links_to_folders_are_followed(tmp_path):
    picture(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "more").symlink_to(tmp_path / "elsewhere")
    assert ids(tmp_path / "root") == ["more/a.png"]


@pytest.mark.happens(
    "Files",
    "links that lead back, or twice to one folder",
    "each folder and file is read once, by its direct path",
)
@pytest.mark.parametrize(
    "links",
    [
        {"current": "."},
        {"current": ".", "here": "."},
        {"m/back": "..", "m/again": "../m"},
        {"0": "m"},  # sorts before the folder that it leads to
        {"m/over": "../n", "n/over": "../m"},
        {"a": "b", "b": "a"},
        {"up": "../.."},
        {"up": "..", "m/0": "../n/../m/.."},
        {"x.jpg": "m"},
        {"0.png": "m/a.png", "m/0.png": "a.png"},
    ],
)
def test_each_folder_and_file_is_read_once_by_its_direct_path(links, tmp_path):
    root = tmp_path / "set" / "root"
    picture(root / "m" / "a.png", root / "n" / "b.png", tmp_path / "set" / "val" / "c.png")
    for link, target in links.items():
        (root / link).symlink_to(target)
    assert [file.relative_to(root).as_posix() for file in image_files(root)] == [
        "m/a.png",
        "n/b.png",
    ]


@pytest.mark.happens(
    "Files",
    "a file of two names, by a link",
    "one photograph",
)
def test_a_file_of_two_names_is_one_photograph(tmp_path):
    picture(tmp_path / "a.png", tmp_path / "b.png")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "c.png").hardlink_to(tmp_path / "a.png")
    (tmp_path / "d.png").symlink_to("b.png")
    assert ids(tmp_path) == ["a.png", "b.png"]


def test_links_to_what_is_elsewhere_are_images_of_the_folder(tmp_path):
    picture(tmp_path / "elsewhere" / "a.png", tmp_path / "root" / "b.png")
    (tmp_path / "root" / "c.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    assert ids(tmp_path / "root") == ["b.png", "c.png"]


def test_images_come_in_the_order_of_folders_then_names(tmp_path):
    names = ["a/b.png", "a-b.png", "a/c/d.png", "B.png"]
    picture(*(tmp_path / name for name in names))
    assert ids(tmp_path) == ["B.png", "a/b.png", "a/c/d.png", "a-b.png"]


@pytest.mark.happens(
    "Files",
    "hidden files and folders, `.ipynb_checkpoints`, `.Trash`, `__MACOSX`, `node_modules`, `~$a.png`",
    "left out, read if named themselves",
)
def test_what_is_hidden_is_no_photograph_unless_it_is_asked_for(tmp_path):
    hidden = [
        ".ipynb_checkpoints/a.png",
        ".Trash/a.png",
        "._a.png",
        "__MACOSX/a.png",
        "@eaDir/a.png",
        "node_modules/a.png",
        "lost+found/a.png",
        "~$a.png",
    ]
    picture(tmp_path / "a.png", *(tmp_path / name for name in (*hidden, "m/.b/c.png", "m/.d.png")))
    assert ids(tmp_path) == ["a.png"]
    assert ids(tmp_path / ".Trash") == ["a.png"]
    assert find_photos([tmp_path / "._a.png"]) == [(tmp_path / "._a.png", Path("__a"))]


@pytest.mark.happens(
    "Files",
    "pictures that nothing here decodes, beside others",
    "counted in a warning, with their suffixes and a remedy",
)
def test_pictures_without_a_decoder_are_counted_and_the_remedy_named(tmp_path):
    picture(tmp_path / "a.png")
    for name in ("b.HEIC", "m/c.heic", "d.nef", "notes.txt", "e.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"...")
    message = r"cannot be decoded here \(2 \.heic, 1 \.nef\): pip install pillow-heif, or save them"
    with pytest.warns(UserWarning, match=message):
        assert ids(tmp_path) == ["a.png"]
    (tmp_path / "a.png").unlink()
    with pytest.raises(
        tt.TTAMEError, match=f"no images in .* or below, but pictures that {message}"
    ):
        ids(tmp_path)


def test_no_bad_file_costs_the_others(tmp_path):
    picture(tmp_path / "good.png", tmp_path / "folder.jpg" / "inside.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "zero.jpg").touch()
    (tmp_path / "half.png").write_bytes((tmp_path / "good.png").read_bytes()[:-30])
    with pytest.warns(
        UserWarning, match=r"6 of 8 images .*: device\.jpg, .*; the first: .*a device"
    ):
        folder = tt.ImageFolder(tmp_path, Preprocessing(8, 8).crop, on_error="skip")
    assert [item["id"] for item in folder] == ["folder.jpg/inside.png", "good.png"]
    assert len(folder.skipped) == 6
    with pytest.raises(tt.TTAMEError, match=r"device\.jpg is a pipe.*\(on_error: skip\)"):
        ids(tmp_path)


@pytest.mark.happens(
    "Files",
    "a file that vanishes between listing and reading",
    "named",
)
def test_a_file_that_vanishes_is_named(tmp_path):
    picture(tmp_path / "a.png")
    folder = tt.ImageFolder(tmp_path, Preprocessing(8, 8).crop, on_error="skip")
    (tmp_path / "a.png").unlink()
    with pytest.raises(tt.TTAMEError, match=r"a\.png is not there"):
        folder[0]


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """A folder with an image, and a folder in it that may not be read, by root either."""
    picture(tmp_path / "a.png", tmp_path / "closed" / "b.png")
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    return tmp_path


@pytest.mark.happens(
    "Files",
    "a folder that may not be read",
    "named, the rest is read",
)
def test_a_folder_that_may_not_be_read_is_named(closed):
    message = r"the folder .*closed cannot be read \(Permission denied\); change its permissions"
    for root in (closed, closed / "closed"):
        with pytest.raises(tt.TTAMEError, match=message):
            ids(root)
    with pytest.warns(UserWarning, match=message):
        assert ids(closed, on_error="skip") == ["a.png"]


@pytest.mark.happens(
    "Files",
    "three photographs, and more are asked for",
    "what is there and what is asked for",
)
@pytest.mark.parametrize(
    ("part", "message"),
    [
        (slice(4), "holds 3 images, 4 are asked for; expected parts .* of 3 together"),
        (slice(2, 5), r"holds 3 images, 5 are asked for \(2 of them for another part\)"),
        (slice("a"), "an end of part is 'a'; expected a whole number"),
        (slice(3, None), r"holds 3 images, 3 are asked for \(3 of them for another part\)"),
        (slice(0), "slice.* is empty; expected a part of 1 image or more"),
        (slice(3, 3), "slice.* is empty; expected a part of 1 image or more"),
    ],
)
def test_a_part_that_a_folder_has_not_is_told_by_what_is_there(part, message, tmp_path):
    picture(*(tmp_path / f"{i}.png" for i in range(3)))
    with pytest.raises(tt.TTAMEError, match=message):
        ids(tmp_path, part=part)
    assert len(ids(tmp_path, part=slice(3))) == 3


def test_names_that_are_no_text_are_ids_that_can_be_written(tmp_path):
    picture(Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.png")))
    assert ids(tmp_path) == [r"a\udcff.png"]
    assert ids(tmp_path)[0].encode()


PLAIN = [
    (["cat.jpg", "more/dog.png", "a-b.jpg", "a/b.jpg"], ["a/b", "a-b", "cat", "more/dog"]),
    (["IMG 1 (2).v3.png", "Müller.jpg", "猫.jpg"], ["IMG 1 (2).v3", "Müller", "猫"]),
]


@pytest.mark.parametrize(("files", "names"), PLAIN)
def test_plain_names_stay(files, names, tmp_path):
    picture(*(tmp_path / file for file in files))
    assert [name.as_posix() for _, name in find_photos([tmp_path])] == names


@pytest.mark.happens(
    "Files",
    "photographs whose names differ in folder, suffix, case or encoding alone",
    "outputs get a digest of the path, the same each time",
)
@pytest.mark.parametrize(
    "files",
    [
        ["one/cat.jpg", "two/cat.jpg"],
        ["one/cat.jpg", "one/cat.png", "one/cat.jpeg"],
        ["one/cat.jpg", "one/Cat.jpg", "two/CAT.JPG"],
        ["one/a/cat.jpg", "one/A/cat.jpg"],
        ["one/caf\u00e9.jpg", "one/cafe\u0301.jpg"],
        ["one/stra\u00dfe.jpg", "one/STRASSE.jpg"],
        ["one/a:b.jpg", "one/a?b.jpg", "one/a_b.jpg"],
        ["one/CON.jpg", "one/_CON.jpg"],
        ["one/" + "x" * 240 + "1.jpg", "one/" + "x" * 240 + "2.jpg"],
    ],
)
def test_names_of_outputs_differ_on_every_file_system_and_stay_the_same(files, tmp_path):
    picture(*(tmp_path / file for file in files))
    (tmp_path / "two").mkdir(exist_ok=True)
    picture(tmp_path / "two" / "other.png")
    places = [tmp_path / "one", tmp_path / "two"]
    named = find_photos(places)
    assert len(named) == len(files) + 1
    plain = [unicodedata.normalize("NFC", str(name)).casefold() for _, name in named]
    assert len(set(plain)) == len(named) and "other" in plain
    assert find_photos(places) == named
    assert dict(find_photos(places[::-1])) == dict(named)


@pytest.mark.happens(
    "Files",
    "names that another system does not take: CON, `a:b`, trailing dots, newlines, stray bytes",
    "made portable",
)
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("CON.jpg", "_CON"),
        ("nul.x.jpg", "_nul.x"),
        ("com1/a.jpg", "_com1/a"),
        ("a:b.jpg", "a_b"),
        ('<a>"|?*\\.jpg', "_a______"),
        ("a. /b ..jpg", "a._/b _"),
        ("-rf.jpg", "_rf"),
        ("a\nb\x1b[2J.jpg", "a_b_[2J"),
        ("a\udcff.jpg", "a_"),
        ("\u202egpj.jpg", "_gpj"),
        ("é" * 125 + ".jpg", "é" * 112),
    ],
)
def test_names_of_outputs_are_such_as_every_system_takes(file, name, tmp_path):
    picture(tmp_path / file)
    assert [str(found) for _, found in find_photos([tmp_path])] == [name]


@pytest.mark.happens(
    "Files",
    "a photograph that is given twice, or with its folder",
    "explained once",
)
def test_a_photograph_that_is_given_twice_is_listed_once(photos):
    once = find_photos([photos])
    assert find_photos([photos, photos / "a.png", photos / "more", photos]) == once
    (photos / "c.png").symlink_to("a.png")
    assert find_photos([photos, photos / "c.png"]) == once


def test_places_that_are_not_there_or_hold_no_image_are_reported_and_the_rest_is_listed(photos):
    (photos / "empty").mkdir()
    told = []
    places = [photos / "gone", photos / "empty", photos, photos / ("x" * 300)]
    assert find_photos(places, told.append) == find_photos([photos])
    assert [type(error) for error in told] == [tt.TTAMEError] * 3
    for place in places[:2]:
        with pytest.raises(tt.TTAMEError, match=place.name):
            find_photos([place])


@pytest.mark.happens(
    "Files",
    "an output folder that is a file, read-only, or below one",
    "refused before any work",
)
@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("file", "file is no folder; name another folder"),
        ("file/x/y", "file is no folder"),
        ("link", "link is no folder"),
        ("x" * 300, r"x may not be written to \(File name too long\)"),
        ("/proc/x", r"/proc may not be written to \("),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_named(out, message, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(tt.TTAMEError, match=message):
        check_writable(tmp_path / out)
    check_writable(tmp_path / "a" / "b")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "link"]


@pytest.mark.happens("Files", "a folder of images is asked for with {given}", "{message}")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"root": None}, "root is None; expected the path of a folder of images"),
        ({"root": 3}, "root is 3; expected the path of a folder of images"),
        ({"part": 3}, "part is 3; expected a slice of images"),
        ({"part": (0, 3)}, r"part is \(0, 3\); expected a slice of images"),
        ({"seed": -1}, "seed is -1; expected a whole number, at least 0"),
        ({"transform": None}, "transform is None .*expected backbone.crop, or a callable"),
    ],
)
def test_what_no_folder_can_be_made_of(given, message, tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(tt.TTAMEError, match=message):
        tt.ImageFolder(**{"root": tmp_path, "transform": Preprocessing(8, 8).crop, **given})


@pytest.mark.happens(
    "Files",
    "a transform of torchvision's is given for images of a folder",
    "refused: “of a torchvision transform t make one by lambda picture, rng: t(picture)”",
)
@pytest.mark.parametrize("version", [transforms, v2])
def test_a_transform_of_torchvisions_is_told_what_it_lacks(version, tmp_path):
    picture(tmp_path / "a.png")
    theirs = version.Compose([version.Resize((8, 8)), version.PILToTensor()])
    message = r"make one by lambda picture, rng: t\(picture\)"
    with pytest.raises(tt.TTAMEError, match=message):
        tt.ImageFolder(tmp_path, theirs)[0]  # those of version 2 do not say how many they take
    images = tt.ImageFolder(tmp_path, lambda picture, rng: theirs(picture))
    assert images[0]["image"].shape == (3, 8, 8)
