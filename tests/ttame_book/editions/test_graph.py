"""The graph's steps hold together: what one needs an earlier one writes, and its notebook really does."""

import ast
import json
from functools import cache
from pathlib import Path

import pytest
import yaml

import ttame_book as tb
from tests.commands import ROOT
from tests.ttame_book import smoke
from ttame_book.editions.configuration import Configuration
from ttame_book.editions.graph import EXPLAINER, STEPS, needed, step_key

OF_TRAINING = ("training", "explainer", "training_lengths", "ablated")
"""Calls that find or make an explainer of an edition."""


@cache
def code_of(notebook):
    """The syntax of a notebook's code cells."""
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    return ast.parse("\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code"))


def calls(notebook):
    """Names of what a notebook calls, its arguments that are literals, how many it has in all."""
    for node in ast.walk(code_of(notebook)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            yield name, [a.value for a in node.args if isinstance(a, ast.Constant)], len(node.args)


def saved(notebook):
    """Files that a notebook writes by name, a figure's data among them."""
    with_data = {
        values[-1].replace(".svg", ".csv")
        for name, values, count in calls(notebook)
        if name == "save_figure" and count == 3 and values
    }
    return with_data | {
        values[-1]
        for name, values, _ in calls(notebook)
        if name in ("save_table", "save_scores", "save_figure") and values
    }


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.rule)
def test_what_a_step_says_it_writes_its_notebook_saves(step, tmp_path):
    if step.notebook == "03_train":  # by the training itself
        edition = smoke.read(tmp_path)
        for backbone in edition.backbones:
            files = edition.training_files(backbone)
            assert {file.parent for file in files} == {edition.folder(backbone)}
            assert [file.name for file in files] == list(step.outputs)
        trained = [
            ast.unparse(n) for n in ast.walk(code_of(step.notebook)) if isinstance(n, ast.Call)
        ]
        assert any(text.startswith("run.edition.training(model).run(") for text in trained)
    else:
        assert set(step.outputs) <= saved(step.notebook)


def test_what_a_step_needs_an_earlier_one_writes():
    made = set()
    for step in STEPS:
        assert set(step.needs) <= made, step.notebook
        assert not set(step.outputs) & made
        made |= set(step.outputs)
    assert [step.notebook for step in STEPS] == sorted(step.notebook for step in STEPS)


def test_a_step_waits_for_the_explainer_that_its_notebook_explains_with():
    for step in STEPS:
        asked = {name for name, *_ in calls(step.notebook)} & {*OF_TRAINING, "compared_methods"}
        assert asked, step.notebook  # or it says nothing of T-TAME
        trains_itself = asked <= {"training", "ablated"}  # one of the lengths is the edition's own
        assert (EXPLAINER in step.needs) == (not trains_itself and step.notebook != "03_train")


def test_the_overview_reads_what_the_steps_write():
    read = {values[0] for name, values, *_ in calls("12_compare") if name == "tables"}
    assert len(read) >= 7
    assert read <= {output for step in STEPS for output in step.outputs}


def test_a_notebooks_name_for_itself_and_its_parameters_are_those_of_its_step():
    for step in STEPS:
        (started,) = [values for name, values, *_ in calls(step.notebook) if name == "start_run"]
        assert started == [step.notebook]
        assert sum(name == "finish" for name, *_ in calls(step.notebook)) == 1


def test_a_step_depends_on_entries_that_a_configuration_may_have():
    schema = yaml.safe_load((ROOT / "config" / "schema.yaml").read_text())
    for step in STEPS:
        for setting in step.settings:
            section, _, part = setting.partition(".")
            found = schema["properties"][section]
            while "$ref" in found:
                found = schema["$defs"][found["$ref"].rpartition("/")[2]]
            assert not part or part in found["properties"], setting


TRAINERS = {"train", "ablations", "hyperparameters", "convergence"}
COMPARERS = {"evaluate", "road", "qualitative"}
ALL = {step.rule for step in STEPS}


@pytest.mark.parametrize(
    ("place", "value", "rules"),
    [
        ("sanity.images", 2, {"sanity"}),
        ("evaluate.road_images", 5, {"road"}),
        ("evaluate.percentages", [50], {"evaluate", "counterfactual"}),
        ("ablate.steps", 1, {"ablations"}),
        ("tune.steps", [1], {"hyperparameters"}),
        ("converge.steps", [1], {"convergence"}),
        ("counterfactual.images", 2, {"counterfactual"}),
        ("evaluate.limits.rise", 4, COMPARERS),
        ("evaluate.options.rise", {"masks": 9}, COMPARERS),
        ("evaluate.methods", ["t-tame", "l-cam-img"], {*COMPARERS, "ablations", "convergence"}),
        (
            "evaluate.methods",
            ["l-cam-img", "random"],
            {
                *COMPARERS,
                "train",
                "ablations",
                "convergence",
            },  # the others wait for what was trained
        ),
        ("train.max_lr", 0.2, TRAINERS),
        ("seed", 1, ALL),
        ("data.digits.test", 23, ALL),
        ("backbones.demo_resnet.taps", "fine", ALL),
        ("backbones.demo_vit.taps", "spread", set()),  # of another backbone
        ("title", "Another", set()),
    ],
)
def test_a_setting_reruns_what_depends_on_it(place, value, rules, tmp_path):
    plain, other = smoke.read(tmp_path), smoke.read(tmp_path)
    section, (*path, last) = other.config, place.split(".")
    for part in path:
        section = section[part]
    assert section.get(last) != value
    section[last] = value
    name = "demo_resnet"
    changed = {s.rule for s in STEPS if step_key(plain, s, name) != step_key(other, s, name)}
    assert changed == rules


def test_the_key_of_a_step_is_that_of_its_backbone(tmp_path):
    edition = tb.Edition.read("demo", results=str(tmp_path), root=Path(ROOT))
    for step in STEPS:
        keys = {step_key(edition, step, name) for name in edition.backbones}
        assert len(keys) == len(edition.backbones) == 4


def test_a_gallery_is_trained_and_shown_and_waits_for_no_scores():
    demo = Configuration.read("demo")
    assert demo.backbones[:-1] == demo.scored
    name = demo.backbones[-1]
    steps = {step.notebook: step for step in STEPS if name in getattr(demo, step.among)}
    assert list(steps) == ["03_train", "06_qualitative"]
    shown = steps["06_qualitative"]
    assert needed(demo, shown, name) == [EXPLAINER]
    assert needed(demo, shown, "demo_vgg") == [EXPLAINER, "scores.parquet"]
