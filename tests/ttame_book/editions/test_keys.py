"""What is recomputed: a line of a copy of the project is changed, exactly the dependants rerun."""

import json
import shutil
from pathlib import Path

import pytest

from tests.commands import ROOT
from ttame_book.editions import keys as editions_keys
from ttame_book.editions.configuration import Configuration
from ttame_book.editions.graph import STEPS, step_key
from ttame_book.editions.keys import answers_key, closure, maps_key, result_key, training_key
from ttame_core.errors import TTAMEError
from ttame_core.methods.registry import METHODS


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
            found[f"{name} {backbone} trainings"] = training_key(edition, backbone)
            found[f"{name} {backbone} answers"] = answers_key(edition, backbone)
            for method, rival in METHODS.items():
                key = maps_key(edition, backbone, rival.made_by)
                found[f"{name} {backbone} maps {method}"] = key
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
    steps = of(base, "demo_vgg", "demo_resnet", "demo_vit") - of(base, "maps", "answers")
    own = {"02_backbones", *of(base, "counterfactual")}  # two digits are pasted there
    assert changed == steps | own


def test_the_photographs_in_packages_rerun_their_classifier_and_the_digits_on_them(copy, base):
    changed = changed_by(copy, base, "ttame_book/demo/photographs.py", "slice(0, 8)", "slice(0, 7)")
    assert of(changed, "demo") >= of(base, "demo") - of(base, "maps", "answers")
    assert not of(changed, "imagenette") - of(changed, "counterfactual")


def test_the_choice_of_a_vits_target_layer_makes_maps_anew(copy, base):
    file, old = "ttame_core/methods/cams.py", "if norms and reach[norms[-1]]:"
    changed = changed_by(copy, base, file, old, "if norms:")
    cams = ("grad-cam", "grad-cam++", "layer-cam", "score-cam", "ablation-cam", "iia")
    assert of(changed, "maps") == of(base, *cams)
    assert not of(changed, "trainings", "answers", "train", "hyperparameters", "sanity")
    assert of(changed, "evaluate", "road", "qualitative") == of(
        keys(copy), "evaluate", "road", "qualitative"
    )
    by_norm = changed_by(copy, base, "ttame_core/classifiers/taps.py", '("ln_1", ', '("ln_2", ')
    assert of(by_norm, "maps") == of(base, "maps")


def test_one_method_makes_its_own_maps_anew_and_no_others(copy, base):
    changed = changed_by(copy, base, "ttame_core/methods/rise.py", "(len(grids) * p)", "len(grids)")
    assert of(changed, "maps") == of(base, "rise")
    assert not of(changed, "trainings", "answers", "train")


def test_the_imputation_asks_the_classifier_anew_and_trains_nothing(copy, base):
    changed = changed_by(
        copy, base, "ttame_core/metrics/imputation_numba.py", "F32(0.8)", "F32(0.7)"
    )
    assert of(changed, "answers") == of(base, "answers")
    assert not of(changed, "trainings", "maps", "train")


def test_another_rival_in_the_registry_trains_nothing_and_makes_no_map_anew(copy, base):
    file, new = (
        "ttame_core/methods/registry.py",
        '    "other": Rival("ttame_core.methods.rise:rise"),\n',
    )
    line = '    "rise": Rival("ttame_core.methods.rise:rise", costly=True),\n'
    changed = changed_by(copy, base, file, line, line + new)
    assert of(changed, "evaluate") == of(base, "evaluate")
    assert not of(changed, "trainings", "answers", "maps")


def test_a_name_more_that_a_package_offers_reruns_nothing(copy, base):
    file, old = "ttame_core/__init__.py", '"read_image")'
    assert changed_by(copy, base, file, old, '"check_images", "read_image")') == set()


def test_how_a_classifier_is_built_reruns_all_that_is_of_one(copy, base):
    file = "ttame_core/classifiers/loading.py"
    changed = changed_by(copy, base, file, '"num_heads": 3', '"num_heads": 6')
    assert of(changed, "trainings", "answers", "maps") == of(base, "trainings", "answers", "maps")


def test_the_demos_classifiers_are_trained_anew_with_their_images_and_recipes(copy, base):
    for file, old, new in (
        ("ttame_book/demo/digits.py", "(26, 35)", "(25, 35)"),
        ("ttame_book/demo/training.py", "epochs=12", "epochs=13"),
    ):
        assert "02_backbones" in changed_by(copy, base, file, old, new)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (
            "trained.py",
            "seed=self.seed,\n            checkpoint",
            "seed=1,\n            checkpoint",
        ),
        ("splits.py", "root, preprocessing)", "root, None)"),
    ],
)
def test_how_the_book_trains_and_opens_images_trains_anew(copy, base, file, old, new):
    changed = changed_by(copy, base, f"ttame_book/editions/{file}", old, new)
    assert of(changed, "trainings", "train") == of(base, "trainings", "train")
    assert not of(changed, "answers", "maps")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("classifiers.py", "num_layers=5", "num_layers=6"),
        ("imagenette.py", "import", "import json\nimport"),
    ],
)
def test_what_only_the_demo_or_a_download_needs_reruns_no_photographs(copy, base, file, old, new):
    changed = changed_by(copy, base, f"ttame_book/demo/{file}", old, new)
    assert not of(changed, "imagenette", "00_explain", "01_own_model")
    assert bool(changed) == (file == "classifiers.py")


def test_a_download_changes_no_key(copy):
    edition = Configuration.read("imagenette", root=copy)
    folder = copy / edition.config["data"][edition.config["download"]]["root"]
    before = {b: training_key(edition, b) for b in edition.backbones}
    steps = [step_key(edition, step, edition.backbones[0]) for step in STEPS]
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "0.png").write_bytes(b"fetched")
    forget()
    assert before == {b: training_key(edition, b) for b in edition.backbones}
    assert steps == [step_key(edition, step, edition.backbones[0]) for step in STEPS]


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
@pytest.mark.slow
def test_words_rerun_nothing(copy, base, file, old, new):
    assert changed_by(copy, base, file, old, new) == set()


@pytest.mark.slow
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


def test_what_hides_its_imports_is_refused(tmp_path):
    for name, line in (("a", "from ttame_core import *"), ("b", "from . import masking")):
        file = tmp_path / f"{name}.ipynb"
        file.write_text(json.dumps({"cells": [{"cell_type": "code", "source": [line]}]}))
        with pytest.raises(TTAMEError, match="hides what is imported"):
            closure([file])


@pytest.mark.parametrize(
    "lines",
    [
        "import ttame_core as tt\ntt.metrics.evaluate",
        "from ttame_core import metrics as m\nm.evaluate",
        "%matplotlib inline\nimport ttame_core.metrics as m\nm.evaluate",
    ],
)
def test_names_are_followed_through_packages_by_any_name(tmp_path, lines):
    notebook = tmp_path / f"{hash(lines)}.ipynb"
    notebook.write_text(json.dumps({"cells": [{"cell_type": "code", "source": [lines]}]}))
    assert "ttame_core.metrics.imputation" in closure([notebook])


def test_a_notebook_that_is_no_python_is_named(tmp_path):
    file = tmp_path / "broken.ipynb"
    file.write_text(json.dumps({"cells": [{"cell_type": "code", "source": ["x = ("]}]}))
    with pytest.raises(TTAMEError, match=r"broken\.ipynb is no Python"):
        closure([file])


def test_links_that_lead_back_are_listed_once(tmp_path):
    (tmp_path / "a.png").write_bytes(b"a")
    for name, target in (("current", "."), ("again", "."), ("gone.png", "nowhere")):
        (tmp_path / name).symlink_to(target)
    forget()
    assert editions_keys._listing(tmp_path).count("\n") == 0
