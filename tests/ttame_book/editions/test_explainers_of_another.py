"""Editions that train nothing: their explainers, and classifiers, are another edition's."""

import shutil

import pytest
import torch
import yaml

import ttame_book as tb
import ttame_core as tt
from tests.commands import ROOT
from tests.ttame_book.editions.test_released import WITHOUT_TRAINING, steps_of
from ttame_book.editions.configuration import Configuration
from ttame_book.editions.graph import STEPS, needed, step_key
from ttame_book.studies.comparison import compared_methods

OTHERS = {
    "edition": "others",
    "title": "Others",
    "seed": 5,
    "data": {"others": {"kind": "digits", "val": 4, "test": 6}},
    "backbones": {"demo_resnet": {"data": "others", "explainers": "smoke"}},
    "evaluate": {
        "methods": ["t-tame", "t-tame-matched", "random"],
        "percentages": [50],
        "batch_size": 4,
    },
    "sanity": {"images": 3},
    "counterfactual": {"images": 3},
}


@pytest.fixture
def project(tmp_path):
    """A project with the edition ``others``, and a classifier of which ``smoke`` says more."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    change(tmp_path, "smoke", backbones={"demo_resnet": {"data": "digits", "taps": "fine"}})
    change(
        tmp_path,
        "smoke",
        claims={},
        ablate={"steps": 2, "images": 4, "seeds": [1]},
        converge={"steps": [1], "images": 4},
    )
    (tmp_path / "config" / "others.yaml").write_text(yaml.safe_dump(OTHERS))
    return tmp_path


def change(project, name, **values):
    file = project / "config" / f"{name}.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | values))


def keys(project, notebooks=WITHOUT_TRAINING):
    edition = Configuration.read("others", root=project)
    return {step_key(edition, s, "demo_resnet") for s in STEPS if s.notebook in notebooks}


def test_nothing_is_trained_and_classifiers_are_as_the_other_edition_has_them(project):
    edition = Configuration.read("others", root=project)
    assert edition.entry("demo_resnet") == OTHERS["backbones"]["demo_resnet"] | {"taps": "fine"}
    assert edition.trained == edition.studied == edition.converged == []
    assert steps_of(edition, "demo_resnet") == WITHOUT_TRAINING
    for step in (step for step in STEPS if step.notebook in WITHOUT_TRAINING):
        assert "explainer.safetensors" not in needed(edition, step, "demo_resnet")


def test_explainers_are_those_that_the_other_edition_trained(project):
    trainer = tb.Edition.read("smoke", root=project)
    model = trainer.backbone("demo_resnet")
    training = trainer.training(model)
    ours, _ = training.run()
    written = training.file.stat().st_mtime_ns
    edition = tb.Edition.read("others", root=project)
    model = edition.backbone("demo_resnet")
    images = torch.stack([item["image"] for item in edition.images(model, "test")])
    assert len(images) == 6
    found = edition.explainer(model)
    assert torch.equal(found.explain(images), ours.explain(images))
    assert training.file.stat().st_mtime_ns == written
    compared, left_out = compared_methods(edition, model)  # a rival is trained there too
    assert (list(compared), left_out) == (OTHERS["evaluate"]["methods"], {})
    assert training.file.with_name("explainer-t-tame-matched.safetensors").is_file()
    assert not list((project / "results" / "others").rglob("*.safetensors"))


def test_two_editions_may_have_explainers_of_each_other(project):
    smoke = yaml.safe_load((project / "config" / "smoke.yaml").read_text())
    trains = {section: smoke[section] for section in ("train", "ablate", "tune")}
    theirs, own = ({"data": d} for d in ("digits", "others"))
    ours = OTHERS["backbones"] | {"demo_vit": own}
    change(project, "others", backbones=ours, **trains)
    change(
        project,
        "smoke",
        backbones=smoke["backbones"] | {"demo_vit": theirs | {"explainers": "others"}},
    )
    for edition, trained in (("others", "demo_vit"), ("smoke", "demo_resnet")):
        assert Configuration.read(edition, root=project).trained == [trained]


def test_a_classifier_beside_its_own_has_explainers_of_the_same_edition(project):
    folder = {"kind": "folder", "root": "data/others", "val": 1, "test": 1}
    change(project, "others", data=OTHERS["data"] | {"photographs": folder})
    edition = tb.Edition.read("others", root=project)
    assert edition.entry("resnet18") == {"data": "photographs", "explainers": "smoke"}
    assert edition.trainer("resnet18").name == "smoke"


def test_results_depend_on_how_the_other_edition_trains(project):
    first = keys(project)
    change(project, "smoke", sanity={"images": 2})
    assert keys(project) == first
    change(project, "smoke", seed=1)
    second = keys(project)
    assert not second & first
    train = yaml.safe_load((project / "config" / "smoke.yaml").read_text())["train"]
    change(project, "smoke", train=train | {"steps": 4})
    assert not keys(project) & second


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ("others", "explainers: others trains none of demo_resnet; expected an edition"),
        ("more", "explainers: more trains none of demo_resnet; expected an edition"),
        ("smok", "explainers: smok trains none of demo_resnet; expected an edition"),
        ("demo", "explainers: demo trains none of demo_resnet; expected an edition"),
    ],
)
def test_the_other_edition_trains(other, told, project):
    entry = OTHERS["backbones"]["demo_resnet"]
    more = {"edition": "more", "backbones": {"demo_resnet": entry | {"explainers": "others"}}}
    (project / "config" / "more.yaml").write_text(yaml.safe_dump(OTHERS | more))
    change(project, "demo", backbones={"demo_vit": {"data": "digits"}})
    change(project, "others", backbones={"demo_resnet": entry | {"explainers": other}})
    with pytest.raises(tt.TTAMEError, match=told):
        Configuration.read("others", root=project)
