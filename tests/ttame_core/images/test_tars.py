"""Images in tar files, read where they lie."""

import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

import ttame_core as tt
from ttame_core.images.listing import identity, image_files
from ttame_core.images.reading import Preprocessing
from ttame_core.images.tars import from_tar

CLASSES = ("n02102040", "n01440764")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("unpacked"), np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir()
        for i in range(3):
            picture = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
            picture.save(folder / name / f"{i}.png")
    return folder


def packed(to, of, name="."):
    with tarfile.open(to, "w") as tar:
        tar.add(of, name)
    return to


@pytest.mark.happens(
    "Files",
    "a data set in tar files, one a class or one of all, as ImageNet comes",
    "read through them",
)
@pytest.mark.parametrize("layout", ["one of all", "one a class", "tars in a tar"])
def test_tar_files_hold_the_images_of_the_folder(layout, unpacked, tmp_path):
    if layout == "one of all":
        root = packed(tmp_path / "all.TAR", unpacked)
    else:
        root = tmp_path / "tars"
        root.mkdir()
        for name in CLASSES:
            packed(root / f"{name}.tar", unpacked / name)
        if layout == "tars in a tar":
            root = packed(tmp_path / "train.tar", root)
    plain, found = (
        tt.ImageFolder(each, Preprocessing(8, 8).crop, slice(1, 5)) for each in (unpacked, root)
    )
    assert len(plain) == len(found) == 4
    for one, other in zip(plain, found, strict=True):
        assert torch.equal(one["image"], other["image"]) and one["label"] == other["label"]
        assert one["id"] == other["id"].replace(".tar/", "/")
    several = torch.utils.data.DataLoader(found, 2, num_workers=1)
    assert torch.equal(
        torch.cat([batch["image"] for batch in several]),
        torch.stack([item["image"] for item in plain]),
    )


@pytest.mark.happens(
    "Files", "tar files beside images, perhaps the same ones", "left out, with a warning"
)
def test_tar_files_beside_images_are_left_out(unpacked, tmp_path):
    packed(tmp_path / "again.tar", unpacked)
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    with pytest.warns(UserWarning, match="1 tar files, as there are images beside them"):
        assert [file.name for file in image_files(tmp_path)] == ["one.png"]


@pytest.mark.happens(
    "Files", "a tar file that is damaged or compressed, or an image in one", "named"
)
def test_a_damaged_tar_file_is_named(unpacked, tmp_path):
    whole = packed(tmp_path / "whole.tar", unpacked).read_bytes()
    whole_file = tmp_path / "whole.tar"
    at = whole.index(b"\x89PNG")
    whole_file.write_bytes(whole[:at] + b"none" + whole[at + 4 :])
    with pytest.raises(tt.TTAMEError, match=r"whole\.tar/n\d+/\d\.png cannot be read as an image"):
        tt.ImageFolder(whole_file, Preprocessing(8, 8).crop)
    with pytest.warns(UserWarning, match="1 of 6 images"):
        assert len(tt.ImageFolder(whole_file, Preprocessing(8, 8).crop, on_error="skip")) == 5
    whole_file.write_bytes(b"no tar file" * 100)
    with pytest.raises(tt.TTAMEError, match=r"whole\.tar cannot be read .* not compressed"):
        tt.ImageFolder(whole_file, Preprocessing(8, 8).crop)
    with pytest.raises(tt.TTAMEError, match=r"x\.png is not there"):
        tt.read_image(packed(tmp_path / "other.tar", unpacked) / "x.png")


@pytest.mark.happens(
    "Files", "a tar file with paths out of it, links, hidden files", "not followed"
)
def test_paths_out_of_a_tar_file_are_not_followed(unpacked, tmp_path):
    file = unpacked / CLASSES[0] / "0.png"
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("../up.png", "/top.png", ".hidden/0.png", "~$lock.png", "./good/0.png"):
            tar.add(file, name)
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(file)
        tar.addfile(link)
    names = [f.relative_to(tmp_path).as_posix() for f in image_files(tmp_path)]
    assert "a.tar/good/0.png" in names and not any(
        "hidden" in n or "lock" in n or "link" in n for n in names
    )
    assert all(".." not in name for name in names)


@pytest.mark.happens(
    "Files", "a tar file that was cut off, or with a damaged header in it", "named"
)
def test_a_tar_file_that_is_not_whole_is_no_shorter_one(unpacked, tmp_path):
    file = packed(tmp_path / "a.tar", unpacked)
    whole = file.read_bytes()
    with tarfile.open(file) as tar:
        pictures = [member.offset for member in tar if member.isfile()]
    third, last = pictures[2], pictures[-1]
    damaged = whole[:third] + b"x" * 512 + whole[third + 512 :]
    for content in (damaged, whole[:third], whole[: third + 100], whole[: last + 600]):
        file.write_bytes(content)
        with pytest.raises(tt.TTAMEError, match=r"a\.tar cannot be read .* whole"):
            image_files(tmp_path)
    file.write_bytes(whole)
    assert len(image_files(tmp_path)) == 6


def test_an_image_in_a_tar_file_is_the_same_by_any_link(unpacked, tmp_path):
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
    file = packed(tmp_path / "train" / "a.tar", unpacked)
    (tmp_path / "val" / "b.tar").symlink_to(file)
    one, other = (identity(image_files(tmp_path / name)[0]) for name in ("train", "val"))
    assert one == other != identity(image_files(tmp_path / "train")[1])


def test_what_file_systems_leave_in_a_tar_file_is_left_out(unpacked, tmp_path):
    file = unpacked / CLASSES[0] / "0.png"
    with tarfile.open(tmp_path / "\u0130st.tar", "w") as tar:  # lower case is one letter more
        for name in ("__MACOSX/0.png", "a/@eaDir/0.png", "a/0.png", "a/0.cr2"):
            tar.add(file, name)
    with pytest.warns(UserWarning, match=r"1 \.cr2"):
        (found,) = image_files(tmp_path)
    assert tt.read_image(found).size == (12, 12)


def test_of_a_large_image_in_a_tar_file_no_more_is_read_than_its_header(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (900, 900, 3), dtype=np.uint8))
    picture.save(tmp_path / "large.bmp")
    file = packed(tmp_path / "a.tar", tmp_path / "large.bmp", "large.bmp")
    with from_tar(f"{file}/large.bmp") as part:
        parts = []
        read = part.raw.readinto
        monkeypatch.setattr(part.raw, "readinto", lambda b: parts.append(read(b)) or parts[-1])
        with Image.open(part) as opened:
            assert opened.size == (900, 900)
        assert sum(parts) < 100_000
        opened = Image.open(part)
        assert np.array_equal(opened, picture)
