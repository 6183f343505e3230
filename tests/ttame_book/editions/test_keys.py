"""What is recomputed: a line of a copy of the project is changed, exactly the dependants rerun."""

import shutil
from pathlib import Path

import pytest

from tests.commands import ROOT
from ttame_book.editions import keys as editions_keys
from ttame_book.editions.configuration import Configuration
from ttame_book.editions.graph import STEPS, step_key
from ttame_book.editions.keys import closure, result_key
from ttame_core.recipes import METHODS


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The project's code, and three photographs in each part of a folder."""
    place = tmp_path_factory.mktemp("copy")
    for name in ("ttame_core", "ttame_book", "notebooks", "config"):
        ignored = shutil.ignore_patterns("__pycache__", "explainers")
        shutil.copytree(ROOT / name, place / name, ignore=ignored)
    for part in ("train", "val"):
        (place / "photos" / part).mkdir(parents=True)
        for i in range(3):
            (place / "photos" / part / f"{i}.png").write_bytes(bytes(i))
    return place


@pytest.fixture(scope="module", autouse=True)
def in_the_copy(copy):
    """Let keys be those of the copy's sources, each of which is parsed once a text."""
    parsed = {}

    def read(file, name):
        key = file, name, file.read_text()
        if key not in parsed:
            parsed[key] = editions_keys._read.__wrapped__(file, name)
        return parsed[key]

    read.__wrapped__ = editions_keys._read.__wrapped__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(editions_keys, "ROOT", copy)
        patch.setattr(editions_keys, "_read", read)
        yield
    forget()


def forget():
    """Forget what was read of files: they change while this test runs."""
    for cached in (editions_keys._lazy_names, editions_keys._listing):
        cached.cache_clear()


def keys(place):
    """Keys of all that the editions keep, by edition, backbone and step, or what else it is."""
    forget()
    found = {}
    for name in ("smoke", "demo", "imagenette"):
        settings = {"data_root": str(place / "photos")} if name == "imagenette" else {}
        edition = Configuration.read(name, settings, root=place)
        for backbone in edition.backbones:
            for step in STEPS:
                found[f"{name} {backbone} {step.rule}"] = step_key(edition, step, backbone)
            code = ["ttame_core.training", *edition.code(backbone)]
            photographs = edition.photographs(backbone, "train")
            found[f"{name} {backbone} trainings"] = result_key(code, inputs=photographs)
            for method, rival in METHODS.items():
                code = [rival.made_by.partition(":")[0], *edition.classifier_code(backbone)]
                found[f"{name} {backbone} maps {method}"] = result_key(code)
    found["answers"] = result_key(["ttame_core.metrics.perturbations"])
    for each in ("02_backbones", "12_compare", "00_explain", "01_own_model"):
        found[each] = result_key([Path(place) / "notebooks" / f"{each}.ipynb"])
    return found


def changed_by(place, before, file, old, new):
    """Names of the keys that another text in one file changes; the file is put back."""
    path = place / file
    text = path.read_text()
    assert text.count(old) >= 1, f"{old!r} is not in {file}"
    path.write_text(text.replace(old, new, 1))
    try:
        after = keys(place)
    finally:
        path.write_text(text)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


@pytest.fixture(scope="module")
def base(copy):
    """The keys of the project as it is."""
    return keys(copy)


def of(names, *words):
    """Those names that have one of the words."""
    return {name for name in names if set(words) & set(name.split())}


def test_the_demos_images_rerun_all_that_sees_them(copy, base):
    changed = changed_by(copy, base, "ttame_book/demo/digits.py", "rng.uniform(0.5, 1.0)", "1.0")
    steps = of(base, "demo_vgg", "demo_resnet", "demo_vit") - of(base, "maps")
    own = {"02_backbones", *of(base, "counterfactual")}  # two digits are pasted there
    assert changed == steps | own


def test_the_photographs_in_packages_rerun_their_classifier_and_the_digits_on_them(copy, base):
    changed = changed_by(copy, base, "ttame_book/demo/photographs.py", "slice(0, 8)", "slice(0, 7)")
    assert of(changed, "demo") >= of(base, "demo") - of(base, "maps")
    assert not of(changed, "imagenette") - of(changed, "counterfactual")


def test_the_choice_of_a_vits_target_layer_makes_maps_anew(copy, base):
    file, old = "ttame_core/methods/cams.py", "if backbone.tokens else last"
    changed = changed_by(copy, base, file, old, "if not backbone.tokens else last")
    cams = ("grad-cam", "grad-cam++", "layer-cam", "score-cam", "ablation-cam", "iia")
    assert of(changed, "maps") == of(base, *cams)
    assert not of(changed, "trainings", "answers", "train", "hyperparameters", "sanity")
    assert of(changed, "evaluate", "road", "qualitative") == of(
        keys(copy), "evaluate", "road", "qualitative"
    )
    by_norm = changed_by(copy, base, "ttame_core/classifiers/taps.py", '("ln_1", ', '("ln_2", ')
    assert of(by_norm, "maps") == of(base, "maps")


def test_one_method_makes_its_own_maps_anew_and_no_others(copy, base):
    changed = changed_by(copy, base, "ttame_core/methods/rise.py", "cells + 1", "cells + 2")
    assert of(changed, "maps") == of(base, "rise")
    assert not of(changed, "trainings", "answers", "train")


def test_the_imputation_asks_the_classifier_anew_and_trains_nothing(copy, base):
    changed = changed_by(
        copy, base, "ttame_core/metrics/imputation_numba.py", "F32(0.8)", "F32(0.7)"
    )
    assert "answers" in changed
    assert not of(changed, "trainings", "maps", "train")


def test_the_demos_classifiers_are_trained_anew_with_their_images_and_recipes(copy, base):
    for file, old, new in (
        ("ttame_book/demo/digits.py", "(26, 35)", "(25, 35)"),
        ("ttame_book/demo/training.py", "epochs=12", "epochs=13"),
    ):
        assert "02_backbones" in changed_by(copy, base, file, old, new)


def test_a_notebooks_code_reruns_it_alone(copy, base):
    changed = changed_by(copy, base, "notebooks/10_sanity.ipynb", '[\\"images\\"]', '[\\"image\\"]')
    assert changed == of(base, "sanity")


def test_the_look_of_a_chart_trains_nothing(copy, base):
    changed = changed_by(copy, base, "ttame_book/report/charts.py", "whitegrid", "darkgrid")
    assert "12_compare" in changed and of(changed, "road")
    assert not of(changed, "trainings", "maps", "answers")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("ttame_core/attention.py", '"""The attention mechanism', '"""The mechanism'),
        ("ttame_core/losses.py", '"""Added to E', '"""Put to E'),
        ("ttame_core/attention.py", "# (B, C_i, h_i, w_i)", "# a map"),
        ("ttame_book/demo/digits.py", '"""', '"""Indeed: '),
        ("notebooks/04_evaluate.ipynb", "**Question.**", "**Asked.**"),
        ("notebooks/04_evaluate.ipynb", "# number of test images", "# so many test images"),
    ],
)
def test_words_rerun_nothing(copy, base, file, old, new):
    assert changed_by(copy, base, file, old, new) == set()


def test_other_photographs_rerun_what_reads_them(copy, base):
    for part, other in (("train", "val"), ("val", "train")):
        before = keys(copy)
        (copy / "photos" / part / "0.png").write_bytes(b"another")
        changed = {name for name, key in keys(copy).items() if before[name] != key}
        assert changed and changed == of(changed, "imagenette")
        steps = {"train": {"evaluate", "road", "sanity"}, "val": {"trainings"}}[part]
        assert not of(changed, *steps), other


def test_what_a_module_imports_is_found_through_functions_and_lazy_names():
    found = closure(["ttame_core.methods.rise"])
    assert {"ttame_core.classifiers.backbone", "ttame_core.masking"} <= found.keys()
    assert not found.keys() & {"ttame_core.methods.cams", "ttame_core.training", "ttame_book"}
    # numba's solver is imported in a function
    assert "ttame_core.metrics.imputation_numba" in closure(["ttame_core.metrics.imputation"])
    # tt.method, by its lazy name, stands for every method
    notebook = closure([ROOT / "notebooks" / "01_own_model.ipynb"])
    assert {"ttame_core.methods.cams", "ttame_core.training"} <= notebook.keys()
