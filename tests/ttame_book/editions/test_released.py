"""Editions of released explainers, of the paper's lists, and of random classifiers."""

import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import ttame_book as tb
import ttame_core as tt
from tests.commands import ROOT
from tests.ttame_core.test_authors import CLASSES, builders, checkpoint_of  # noqa: F401
from ttame_book.editions.configuration import Configuration
from ttame_book.editions.graph import STEPS, needed, step_key
from ttame_book.editions.schema import validate
from ttame_book.studies.comparison import compared_methods, evaluation_rounds, score_rounds

WITHOUT_TRAINING = ["04_evaluate", "05_road", "06_qualitative", "10_sanity", "11_counterfactual"]


@pytest.fixture
def project(tmp_path):
    """A project whose ImageNet is two images, with the lists and all checkpoints, which are empty."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    for folder in ("imagenet/val", "lists", "released"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        pixels = rng.integers(0, 255, (256, 300, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "imagenet" / "val" / f"{name}.png")
    (tmp_path / "data" / "lists" / "Validation_2000.txt").write_text("a.png 1\n")
    (tmp_path / "data" / "lists" / "Evaluation_2000.txt").write_text("b.png 2\n")
    for name in ("vgg16", "resnet50", "vit_b_16"):
        (tmp_path / "data" / "released" / f"{name}_TTAME.ckpt").touch()
    return tmp_path


def steps_of(edition, name):
    return [step.notebook for step in STEPS if name in getattr(edition, step.among)]


def test_a_released_explainer_is_measured_and_nothing_is_trained(project):
    edition = Configuration.read("released", root=project)
    assert edition.backbones == edition.scored == ["vgg16", "resnet50", "vit_b_16"]
    assert edition.trained == edition.studied == edition.converged == []
    for name in edition.backbones:
        assert steps_of(edition, name) == WITHOUT_TRAINING
        for step in (step for step in STEPS if step.notebook in WITHOUT_TRAINING):
            there = ["scores.parquet"] if "scores.parquet" in step.needs else []
            assert needed(edition, step, name) == there
    (project / "data" / "released" / "resnet50_TTAME.ckpt").unlink()
    assert edition.backbones == ["vgg16", "vit_b_16"] and list(edition.missing) == ["resnet50"]


def test_an_edition_may_lack_what_training_needs_only_if_all_is_released(project):
    config = Configuration.read("released", root=project).config
    entry = config["backbones"]["resnet50"]
    del entry["released"]
    with pytest.raises(tt.TTAMEError, match="top level: train, ablate, tune must be given"):
        validate(config, ROOT, "mine.yaml")
    entry["released"] = "a file"
    validate(config, ROOT, "mine.yaml")
    del config["data"]["imagenet"]["lists"]
    with pytest.raises(tt.TTAMEError, match=r"data\.imagenet: val, test must be given"):
        validate(config, ROOT, "mine.yaml")


@pytest.mark.parametrize("name", ["released", "imagenet"])
def test_results_depend_on_what_the_lists_say_and_on_the_checkpoint(name, project):
    def keys():
        edition = Configuration.read(name, root=project)
        return {
            step_key(edition, step, "vgg16")
            for step in STEPS
            if "vgg16" in getattr(edition, step.among)
        }

    first, file = keys(), project / "data" / "lists" / "Evaluation_2000.txt"
    file.write_text("b.png 2\n")  # the same again
    assert keys() == first
    file.write_text("b.png 3\n")
    assert not keys() & first
    file.unlink()
    with pytest.raises(tt.TTAMEError, match=r"a list of images cannot be read.*Evaluation"):
        keys()
    file.with_name("Validation_2000.txt").unlink()
    if name == "imagenet":  # which says how many to draw
        assert not keys() & first
    else:
        with pytest.raises(tt.TTAMEError, match="a list of images cannot be read"):
            keys()


def test_an_edition_explains_with_a_released_explainer(project, builders):  # noqa: F811
    file = project / "data" / "released" / "vit_b_16_TTAME.ckpt"
    model, checkpoint = checkpoint_of("vit_b_16")
    torch.save(checkpoint, file)
    edition = tb.Edition.read("released", root=project)
    backbone = edition.backbone("vit_b_16")
    assert backbone.taps[0] == "encoder.layers.encoder_layer_9.ln_1"
    assert backbone.num_classes == CLASSES
    test = edition.images(backbone, "test")
    assert [(item["id"], item["label"]) for item in test] == [("b.png", 2)]
    images = test[0]["image"][None]
    explainer = edition.explainer(backbone)
    assert explainer.backbone is backbone
    assert torch.equal(explainer.explain(images), tt.load_released(file).explain(images))
    assert edition.variant("vit_b_16") == "released, classifier: file"
    edition.config["evaluate"]["methods"] = ["t-tame", "l-cam-img", "random"]
    compared, left_out = compared_methods(edition, backbone)
    assert list(compared) == ["t-tame", "random"]
    assert "none is trained here" in left_out["l-cam-img"]
    rounds = evaluation_rounds(edition, backbone, compared)
    scores = score_rounds(edition, backbone, rounds, {"ad": [50], "lerf": [50]})
    scores = scores[scores["measure"].isin(["ad", "lerf"])]
    assert scores["image_id"].unique().tolist() == ["b.png"]
    assert len(scores) == 2 * 2 and scores["value"].between(0, 100).all()
    entry = edition.config["backbones"]["vit_b_16"]
    torch.save(model.state_dict(), project / "own.pt")
    entry["weights"] = "own.pt"
    assert edition.explainer(edition.backbone("vit_b_16")).notes["classifier"] == "own.pt"
    assert edition.variant("vit_b_16") == "released, classifier: own.pt"
    edition.config["backbones"]["vgg16"]["released"] = entry["released"]
    with pytest.raises(tt.TTAMEError, match=r"vgg16\.released: .* explains vit_b_16"):
        edition.backbone("vgg16")


def test_random_classifiers_are_the_same_in_every_notebook(tmp_path):
    file = tmp_path / "config" / "demo.yaml"
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    config = yaml.safe_load(file.read_text())
    config["backbones"]["demo_resnet"]["weights"] = None
    file.write_text(yaml.safe_dump(config))
    edition = tb.Edition.read("demo", root=tmp_path)
    first = edition.backbone("demo_resnet")
    torch.rand(3)
    again = edition.backbone("demo_resnet")
    assert first.identity() == again.identity()
    torch.manual_seed(0)
    edition.backbone("demo_resnet")
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(0)))
    other = tb.Edition.read("demo", {"seed": 1}, root=tmp_path).backbone("demo_resnet")
    assert other.identity() != first.identity()
