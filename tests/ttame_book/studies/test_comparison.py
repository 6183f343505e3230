"""The methods compared on a backbone: which, on which images, and their scores."""

import pandas as pd
import pytest
import torch

from tests.ttame_book.smoke import read
from ttame_book.studies.comparison import (
    compared_methods,
    evaluation_rounds,
    in_order,
    most_images,
    score_rounds,
)
from ttame_core.images.batches import stack
from ttame_core.methods.library import method
from ttame_core.metrics.costs import counted_passes
from ttame_core.metrics.scores import evaluate


def test_what_cannot_serve_a_backbone_is_left_out_and_says_why(tmp_path):
    edition = read(tmp_path, methods=["l-cam-img", "grad-cam", "transformer-lrp", "random"])
    cnn, vit = (edition.backbone(name) for name in ("demo_resnet", "demo_vit"))
    ready, left_out = compared_methods(edition, vit)
    assert list(ready) == ["grad-cam", "transformer-lrp", "random"]
    assert left_out == {"l-cam-img": "demo_vit works on tokens, l-cam-img is for CNNs"}
    ready, left_out = compared_methods(edition, cnn)
    assert list(ready) == ["l-cam-img", "grad-cam", "random"]
    assert "demo_resnet is no ViT" in left_out["transformer-lrp"]


def test_classes_of_libraries_are_compared_and_their_maps_kept(tmp_path):
    names = ["captum:LayerGradCam", "grad-cam:FEM", "random"]
    edition = read(tmp_path, methods=names)
    edition.config["evaluate"]["options"]["grad-cam:FEM"] = {"k": 1}
    cnn, vit = (edition.backbone(name) for name in ("demo_resnet", "demo_vit"))
    ready, left_out = compared_methods(edition, vit)
    assert list(ready) == names[1:]
    assert left_out["captum:LayerGradCam"].startswith("captum:LayerGradCam gives demo_vit no map")
    images, classes = torch.rand(2, 3, 64, 64), torch.tensor([1, 2])
    ready, left_out = compared_methods(edition, cnn, keep=True)
    assert list(ready) == names and not left_out
    for name, options in (("captum:LayerGradCam", {}), ("grad-cam:FEM", {"k": 1})):
        expected = method(name, cnn, **options)(images, classes)
        assert torch.equal(ready[name](images, classes), expected)
        kept = edition.home / "demo_resnet" / "maps" / name.replace(":", "-")
        assert len(list(kept.iterdir())) == 2
    assert not torch.equal(method("grad-cam:FEM", cnn)(images, classes), expected)


def test_costly_methods_are_scored_on_fewer_images(tmp_path):
    edition = read(tmp_path)
    model = edition.backbone("demo_vit")
    methods = dict.fromkeys(["rise", "grad-cam", "random"])
    groups = evaluation_rounds(edition, model, methods)
    assert [(len(images), list(some)) for images, some in groups] == [
        (24, ["grad-cam", "random"]),
        (8, ["rise"]),
    ]
    everything = {item["id"] for item in groups[0][0]}
    assert {item["id"] for item in groups[1][0]} < everything
    assert len(evaluation_rounds(edition, model, methods, "road_images")) == 1  # 6 are fewer than 8


def test_it_stands_beside_the_faithful_recipe(tmp_path):
    settings = {"methods": ["t-tame", "t-tame-top", "l-cam-img"]}
    edition = read(tmp_path, **settings)
    model = edition.backbone("demo_resnet")
    ready, _ = compared_methods(edition, model)
    images, c = torch.rand(1, 3, 64, 64), torch.tensor([1])
    maps = [ready[name](images, c) for name in settings["methods"]]
    assert not torch.allclose(maps[0], maps[1], atol=1e-3)
    names = {p.name for p in edition.folder("demo_resnet").glob("*.safetensors")}
    assert names == {
        "explainer.safetensors",
        "explainer-t-tame-top.safetensors",
        "explainer-l-cam-img.safetensors",
    }


def test_a_backbones_own_options_and_limits_win_over_the_editions(edition):
    edition.config["evaluate"] |= {"methods": ["rise", "random"]}
    model, images = edition.backbone("demo_resnet"), torch.rand(2, 3, 64, 64)
    for own, masks, count in (({}, 8, 8), ({"options": {"rise": {"masks": 5}}}, 5, 8)):
        edition.config["backbones"]["demo_resnet"] |= own
        ready, _ = compared_methods(edition, model)
        with counted_passes(model.model) as passes:
            ready["rise"](images, torch.tensor([0, 1]))
        assert passes.forwards == 2 * masks
        assert most_images(edition, model, "rise", 24) == count
        assert most_images(edition, model, "random", 24) == 24
    edition.config["backbones"]["demo_resnet"]["limits"] = {"rise": 3}
    assert most_images(edition, model, "rise", 24) == 3
    assert most_images(edition, model, "rise", 2) == 2
    assert most_images(edition, edition.backbone("demo_vit"), "rise", 24) == 8


def test_every_method_is_scored_on_its_images_in_the_editions_order(edition):
    names = ["rise", "brightness", "random"]  # the costly one first: it is scored last
    edition.config["evaluate"] |= {"methods": names, "batch_size": 10}
    model = edition.backbone("demo_resnet")
    ready, _ = compared_methods(edition, model)
    rounds = evaluation_rounds(edition, model, ready)
    told = []

    def progress(label):
        return lambda done, total: told.append((label, done, total))

    measures = {"ad": (50,), "morf": (20,)}
    found = score_rounds(edition, model, rounds, measures, progress)
    assert list(found["method"].unique()) == names
    both, alone = "demo_resnet, brightness, random", "demo_resnet, rise"
    expected = [(both, n, 24) for n in (10, 20, 24)] + [(alone, 8, 8)]
    assert told == expected
    test = edition.images(model, "test")
    for images, methods in rounds:
        ids = [item["id"] for item in images]
        for name in methods:
            own = found[(found["method"] == name) & (found["measure"] == "morf")]
            assert own["image_id"].tolist() == ids
    batch = {"image": stack(test), "id": [item["id"] for item in test]}
    batch["mask"] = torch.stack([item["mask"] for item in test])
    others = {name: ready[name] for name in ("brightness", "random")}
    plain = evaluate(model, others, [batch], measures, edition.seed)
    keys = ["method", "measure", "v", "image_id"]
    left = found.set_index(keys)["value"]
    right = plain.set_index(keys)["value"]
    assert right.to_numpy() == pytest.approx(left.loc[right.index].to_numpy(), abs=1e-2)


def test_rows_come_in_the_order_of_names_and_keep_their_own_among_equals():
    table = pd.DataFrame({"method": list("bacab"), "value": range(5)})
    assert in_order(table, ["c", "a", "b"])["value"].tolist() == [2, 1, 3, 0, 4]
    assert in_order(table, ["b", "a"])["value"].tolist() == [0, 4, 1, 3, 2]  # unknown ones last
    by_value = in_order(table, [4, 0, 1, 2, 3], "value")
    assert by_value["value"].tolist() == [4, 0, 1, 2, 3]


def test_kept_maps_are_those_of_their_options_and_classifier(tmp_path):
    images, classes = torch.rand(1, 3, 64, 64), torch.tensor([1])
    kept = set()
    for masks, masking in ((8, None), (9, None), (8, "standardised"), (8, None)):
        edition = read(tmp_path, methods=["rise"])
        edition.config["evaluate"]["options"] = {"rise": {"masks": masks}}
        model = edition.backbone("demo_resnet", masking=masking)
        own = compared_methods(edition, model, keep=True)[0]["rise"](images, classes)
        before, kept = kept, set(tmp_path.rglob("*.npy"))
        fresh = compared_methods(edition, model)[0]["rise"](images, classes)
        assert torch.allclose(own, fresh, atol=1e-6)
    assert len(kept) == 3 and kept == before  # the last are those of the first
    assert {file.parent for file in kept} == {tmp_path / "smoke" / "demo_resnet" / "maps" / "rise"}
