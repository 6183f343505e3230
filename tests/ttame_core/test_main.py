"""The command line: photographs in, maps and a record of them out."""

import io
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ttame_core as tt
from ttame_core.__main__ import main


def explain(out, *arguments):
    """Run the command with the demo's explainer; return its status and the record's rows.

    These are without confidences, whose last digits may differ from run to run.
    """
    given = ["explain", *map(str, arguments), "--explainer", "demo_resnet", "--out", str(out)]
    return main(given), recorded(out)


def recorded(out):
    record = Path(out) / "explanations.json"
    rows = json.loads(record.read_text())["explanations"] if os.path.isfile(record) else []
    return [{key: row[key] for key in row if key != "confidence"} for row in rows]


def heat_of(out, row):
    return np.load(Path(out) / row["map"])


def test_folders_in_maps_out(shipped, photos, tmp_path, capsys):
    out = tmp_path / "out"
    given = ["explain", str(photos), "--explainer", "demo_resnet", "--out", str(out)]
    assert main([*given, "--top", "2"]) == 0
    written = json.loads((out / "explanations.json").read_text())["explanations"]
    assert [row["rank"] for row in written] == [1, 2, 1, 2]
    assert len(capsys.readouterr().out.splitlines()) == 4
    first, *_, last = written
    explanation = shipped(photos / "a.png")
    assert first["index"] == int(explanation.classes[0])
    assert first["confidence"] == pytest.approx(float(explanation.confidences[0]), abs=1e-5)
    assert np.allclose(np.load(out / first["map"]), explanation.maps[0].numpy(), atol=0.02)
    assert Image.open(out / first["overlay"]).size == (64, 64)
    assert last["overlay"].startswith("more/b-class-")


def test_a_class_is_chosen_in_words_or_by_number(shipped, photos, tmp_path):
    out = tmp_path / "out"
    given = ["explain", str(photos / "a.png"), "--explainer", "demo_resnet", "--out", str(out)]
    assert main([*given, "--class", "class 7", "--class", "3", "--class", "7"]) == 0
    written = json.loads((out / "explanations.json").read_text())["explanations"]
    assert [row["index"] for row in written] == [7, 3]
    maps = shipped(photos / "a.png", torch.tensor([[7, 3]])).maps[0]
    for row, heat in zip(written, maps, strict=True):
        assert np.allclose(np.load(out / row["map"]), heat.numpy(), atol=0.02)


def test_classes_of_one_name_have_files_of_their_own(shipped, photos, tmp_path, monkeypatch):
    labels = tuple("Crane" if i in (3, 7) else f"no {i}" for i in range(10))
    monkeypatch.setattr(tt.Backbone, "labels", labels)
    out = tmp_path / "out"
    given = ["explain", str(photos / "a.png"), "--explainer", "demo_resnet", "--out", str(out)]
    assert main([*given, "--class", "3", "--class", "7", "--class", "1"]) == 0
    written = json.loads((out / "explanations.json").read_text())["explanations"]
    assert [row["map"] for row in written] == ["a-crane-3.npy", "a-crane-7.npy", "a-no-1.npy"]
    assert main([*given, "--class", "7"]) == 0  # what is there is read back
    assert len(json.loads((out / "explanations.json").read_text())["explanations"]) == 3


def test_later_runs_keep_what_earlier_ones_wrote(shipped, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def rows_after(photo, *options):
        given = ["explain", photo, "--explainer", "demo_resnet", "--out", str(out), *options]
        assert main(given) == 0
        return json.loads((out / "explanations.json").read_text())["explanations"]

    first = rows_after(str(photos), "--class", "7")
    both = rows_after(str(photos / "a.png"), "--class", "3")
    assert both[:2] == first
    monkeypatch.chdir(photos)
    again = rows_after("a.png", "--class", "7", "--class", "3")  # the same file, from its folder
    assert sorted(again, key=str) == sorted(both, key=str)
    maps = {file.relative_to(out).as_posix() for file in out.rglob("*.npy")}
    assert {row["map"] for row in again} == maps


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("half", "is no record of explanations"),
        ("[]", "is no record of explanations"),
        ('{"explanations": [{"photo": "a.png"}]}', "is no record of explanations"),
        ('{"classifier": "demo_vgg", "explanations": []}', "these would be of .*demo_resnet"),
    ],
)
def test_what_would_lose_earlier_maps_is_refused(
    record, message, shipped, photos, tmp_path, capsys
):
    out = tmp_path / "out"
    given = ["--explainer", "demo_resnet", "--out", str(out)]
    assert main(["explain", str(photos / "a.png"), *given]) == 0
    (out / "explanations.json").write_text(record)
    before = {file: file.read_bytes() for file in out.iterdir()}
    assert main(["explain", str(photos / "more"), *given]) == 2
    told = capsys.readouterr().err
    assert re.search(message, told) and "name another folder by --out" in told
    assert {file: file.read_bytes() for file in out.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jpg"], "there is no photograph or folder missing.jpg"),
        (["{photos}", "--class", "clas 7"], "has no class 'clas 7'; did you mean 'class 7'"),
        (["{photos}", "--class=-1"], "class -1 of demo_resnet; expected 0 to 9"),
        (["{photos}", "--class", " "], "the class is empty"),
        (["{photos}", "--class", "class"], "10 classes of demo_resnet go by 'class'"),
        (["{photos}", "--top", "11"], "11 classes are asked for; expected 1 to 10"),
        (["{photos}/empty"], "no images in"),
        (["{photos}/missing", "{photos}/empty", "{photos}/pipe.jpg"], "pipe.jpg is a pipe"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    arguments, message, shipped, photos, tmp_path, capsys
):
    (photos / "empty").mkdir()
    if "pipe" in message:
        os.mkfifo(photos / "pipe.jpg")
    given = [a.format(photos=photos) for a in arguments]
    out = tmp_path / "out"
    assert main(["explain", *given, "--explainer", "demo_resnet", "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("out", ["a.png", "a.png/x/y"])
def test_a_file_is_no_folder_to_write_to(out, photos, capsys):
    before = (photos / "a.png").read_bytes()
    assert main(["explain", str(photos), "--out", str(photos / out)]) == 2
    assert "a.png is no folder" in capsys.readouterr().err
    assert (photos / "a.png").read_bytes() == before


@pytest.mark.happens(
    "Files",
    "`explain .` twice, its output anywhere among the photographs",
    "overlays are never read back",
)
@pytest.mark.parametrize("out", ["explained", ".", "more", "more/deep/er"])
def test_what_was_written_is_never_read_back(out, shipped, photos, monkeypatch):
    monkeypatch.chdir(photos)
    status, first = explain(out, ".", "--top", "2")
    assert status == 0 and len(first) == 4
    assert explain(out, ".", "--top", "2") == (0, first)
    assert explain("elsewhere", ".", "--top", "2")[0] == 0
    (photos / out / "explanations.json").unlink()
    overlay = photos / out / first[0]["overlay"]
    overlay.rename(photos / "best.png")
    assert explain("third", ".", "--top", "2") == (0, recorded("elsewhere"))


def files_of(out):
    return sorted(file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file())


def check_own_maps(shipped, out, rows):
    """Every row's file holds the map of its own photograph and class, and no file is another's."""
    assert len({unfolded for row in rows if (unfolded := row["map"].casefold())}) == len(rows)
    for row in rows:
        heat = shipped(row["photo"], torch.tensor([row["index"]])).maps[0]
        assert np.allclose(heat_of(out, row), heat.numpy(), atol=0.02), row
    written = {row[kind] for row in rows for kind in ("map", "overlay")}
    assert {*files_of(out)} == {*written, "explanations.json"}


def noise(file, seed):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (80, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")


@pytest.mark.parametrize(
    "names",
    [
        ["one/cat.jpg", "two/cat.jpg"],
        ["one/cat.jpg", "one/cat.png"],
        ["one/cat.jpg", "one/CAT.jpg", "two/Cat.png"],
        ["one/a/b.jpg", "one/a-b.jpg", "two/a-b.jpg"],
        ["one/" + "x" * 240 + "1.jpg", "one/" + "x" * 240 + "2.jpg"],
        ["one/a:b.jpg", "one/a\nb.jpg", "one/-b.jpg", "one/CON.jpg", "one/a\udcff.jpg"],
    ],
)
@pytest.mark.slow
def test_photographs_of_one_name_have_files_of_their_own(names, shipped, tmp_path):
    for seed, name in enumerate(names):
        noise(tmp_path / "set" / name, seed)
    noise(tmp_path / "set" / "two" / "other.jpg", 99)
    places = [tmp_path / "set" / "one", tmp_path / "set" / "two"]
    status, rows = explain(tmp_path / "out", *places, "--class", "3", "--class", "7")
    assert status == 0 and len(rows) == 2 * len(names) + 2
    check_own_maps(shipped, tmp_path / "out", rows)
    again = explain(tmp_path / "out", *places, "--class", "7", "--class", "3")
    assert again == (0, rows)
    assert explain(tmp_path / "new", *places, "--class", "3", "--class", "7") == (0, rows)


@pytest.mark.happens(
    "Files",
    "a name and a class that together spell another pair",
    "files of their own",
)
def test_a_photographs_name_and_a_class_never_make_anothers_file(shipped, tmp_path, monkeypatch):
    labels = ("cat", "tiger cat", "cat 3", "Cat", "y" * 300, *(f"no {i}" for i in range(5)))
    monkeypatch.setattr(tt.Backbone, "labels", labels)
    for seed, name in enumerate(("a", "a-tiger", "A", "a-cat", "x" * 240)):
        noise(tmp_path / "set" / f"{name}.png", seed)
    chosen = [option for index in range(5) for option in ("--class", str(index))]
    status, rows = explain(tmp_path / "out", tmp_path / "set", *chosen)
    assert status == 0 and len(rows) == 25
    check_own_maps(shipped, tmp_path / "out", rows)
    assert explain(tmp_path / "out", tmp_path / "set", *chosen) == (0, rows)


@pytest.mark.happens(
    "Files",
    "a later run on another photograph of the same name",
    "both are kept",
)
def test_runs_on_photographs_of_one_name_lose_nothing(shipped, tmp_path):
    noise(tmp_path / "one" / "cat.jpg", 1)
    noise(tmp_path / "two" / "cat.jpg", 2)
    explain(tmp_path / "out", tmp_path / "one", "--class", "3")
    status, rows = explain(tmp_path / "out", tmp_path / "two", "--class", "3")
    assert status == 0 and len(rows) == 2
    assert rows[0]["map"] == "cat-class-3.npy"
    check_own_maps(shipped, tmp_path / "out", rows)
    assert explain(tmp_path / "out", tmp_path / "two", "--class", "3") == (0, rows)
    assert explain(tmp_path / "out", tmp_path / "one", "--class", "3") == (0, rows)


@pytest.mark.happens(
    "Files",
    "one bad photograph among good ones",
    "the others are explained, the reason is told, the status is 1",
)
def test_one_bad_file_costs_no_other(shipped, photos, tmp_path, capsys):
    (photos / "0.jpg").write_bytes(b"<html>")
    os.mkfifo(photos / "b.jpg")
    (photos / "more" / "gone.png").symlink_to("nowhere.png")
    (photos / "z.heic").write_bytes(b"...")
    status, rows = explain(tmp_path / "out", "missing.jpg", photos, photos / "b.jpg")
    assert status == 1
    assert [row["name"] for row in rows] == ["a", "more/b"]
    told = capsys.readouterr()
    errors = told.err.splitlines()
    assert len(told.out.splitlines()) == 2
    for name, line in zip(
        ("missing.jpg", r"warning: .*1 \.heic", "0.jpg", "b.jpg", "gone.png"), errors, strict=True
    ):
        assert re.search(name, line), line


@pytest.mark.happens(
    "Files",
    "a photograph too narrow to be cropped",
    "named",
)
def test_a_photograph_that_cannot_be_cropped_is_named(shipped, photos, tmp_path, capsys):
    Image.new("RGB", (1, 2000)).save(photos / "narrow.png")
    status, rows = explain(tmp_path / "out", photos)
    assert status == 1 and [row["name"] for row in rows] == ["a", "more/b"]
    assert re.match(r"error: .*narrow\.png: .* too narrow", capsys.readouterr().err)
    folder = tt.ImageFolder(photos, shipped.backbone.crop)
    with pytest.raises(tt.TTAMEError, match=r"narrow\.png: .* too narrow"):
        list(folder)


def test_pictures_without_a_decoder_are_told_and_no_error(shipped, photos, tmp_path, capsys):
    (photos / "z.heic").write_bytes(b"...")
    assert explain(tmp_path / "out", photos)[0] == 0
    assert re.fullmatch(r"warning: .*photos: .* \(1 \.heic\): .*\n", capsys.readouterr().err)


@pytest.mark.happens(
    "Files",
    "an explanation of many photographs that is interrupted",
    "what was explained is recorded",
)
def test_the_record_is_written_as_photographs_are_explained(shipped, photos, tmp_path, monkeypatch):
    for number in range(3):
        noise(photos / f"c{number}.png", number)
    read, seen = tt.Backbone.read, []

    def reading(self, file):
        rows = recorded(tmp_path / "out")
        assert all((tmp_path / "out" / row["map"]).exists() for row in rows)
        seen.append(len(rows))
        if len(seen) == 5:
            raise KeyboardInterrupt
        return read(self, file)

    monkeypatch.setattr(tt.Backbone, "read", reading)
    with pytest.raises(KeyboardInterrupt):
        explain(tmp_path / "out", photos)
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.happens(
    "Files",
    "control characters and stray bytes in names",
    "escaped where they are printed",
)
def test_names_are_printed_in_what_the_terminal_shows(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(tt.Backbone, "labels", tuple(f"no {i}" for i in range(10)))
    for name in ("a\x1b[2J\n.png", "b\udcff.png", "ü.png"):
        noise(tmp_path / "set" / name, 1)
    (tmp_path / "set" / "c\x07.png").write_bytes(b"...")
    out, err = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, "ascii"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, "ascii"))
    status, rows = explain(tmp_path / "out", tmp_path / "set")
    sys.stdout.flush(), sys.stderr.flush()
    assert status == 1 and len(rows) == 3
    lines = out.getvalue().decode("ascii").splitlines()
    for line, name in zip(lines, (r"a\x1b[2J\n.png", r"b\udcff.png", r"\xfc.png"), strict=True):
        assert f"set/{name}: no " in line
    assert rb"set/c\x07.png cannot be read" in err.getvalue() and b"\x07" not in err.getvalue()
    assert [Path(row["photo"]).name for row in rows][1] == "b\udcff.png"


@pytest.mark.parametrize("name", ["x" * 300, "/proc/x", "photos/a.png/x"])
def test_a_place_that_cannot_be_written_to_is_told(name, shipped, photos, tmp_path, capsys):
    assert explain(tmp_path / name, photos)[0] == 2
    assert re.fullmatch(r"error: .*; .*name another folder.*\n", capsys.readouterr().err)


@pytest.mark.happens(
    "Files",
    "a full disk among the outputs",
    "told, what was written stays",
)
def test_a_full_disk_is_told_and_what_was_written_stays(
    shipped, photos, tmp_path, monkeypatch, capsys
):
    save = np.save

    def full(path, values):
        if path.parent.parent.name == "more":
            raise OSError(28, "No space left on device")
        save(path, values)

    monkeypatch.setattr(np, "save", full)
    status, rows = explain(tmp_path / "out", photos)
    assert status == 2 and [row["name"] for row in rows] == ["a"]
    told = capsys.readouterr().err
    assert re.search(r"more/b-.*npy cannot be written \(No space left on device\)", told)


def test_classes_and_their_number_exclude_each_other(photos, capsys):
    with pytest.raises(SystemExit):
        main(["explain", str(photos), "--class", "7", "--top", "2"])
    assert "not allowed with argument" in capsys.readouterr().err
