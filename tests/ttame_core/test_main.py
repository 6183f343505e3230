"""The command line: photographs in, maps and a record of them out."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import ttame_core as tt
from ttame_core.__main__ import main


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
        (None, r"more/a\.png would be written as a, as .*photos/a\.png has been"),
    ],
)
def test_what_would_lose_earlier_maps_is_refused(
    record, message, shipped, photos, tmp_path, capsys
):
    out = tmp_path / "out"
    given = ["--explainer", "demo_resnet", "--out", str(out)]
    assert main(["explain", str(photos / "a.png"), *given]) == 0
    if record:
        (out / "explanations.json").write_text(record)
    before = {file: file.read_bytes() for file in out.iterdir()}
    (photos / "more" / "b.jpg").rename(photos / "more" / "a.png")
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
        (["{photos}", "{photos}/a.png"], "would be written as a "),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    arguments, message, shipped, photos, tmp_path, capsys
):
    (photos / "empty").mkdir()
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


def test_classes_and_their_number_exclude_each_other(photos, capsys):
    with pytest.raises(SystemExit):
        main(["explain", str(photos), "--class", "7", "--top", "2"])
    assert "not allowed with argument" in capsys.readouterr().err
