"""Bad input is refused before anything runs, by a message that says what was found and what was expected."""

import re
import shutil
from itertools import chain

import pytest
import yaml

import ttame_book as tb
import ttame_core as tt
from tests.commands import ROOT
from ttame_book.editions.configuration import Configuration
from ttame_book.editions.loadable import options_of
from ttame_book.editions.schema import check
from ttame_core.classifiers.fast import PRECISIONS
from ttame_core.methods.registry import METHODS

NAN, INF = float("nan"), float("inf")
FINITE = "a finite number, written like 0.001"
WHOLE = "a whole number"

VALUES = [  # of the smoke edition: place, value, what the message says behind the place
    ("edition", "smok", "edition is 'smok'; expected the file's name, 'smoke'"),
    ("edition", 3, "is 3; expected a text"),
    ("title", "", "is ''; expected some text"),
    ("title", ["a"], "is ['a']; expected a text"),
    ("seed", -1, "is -1; expected at least 0"),
    ("seed", 2**32, f"is {2**32}; expected at most {2**32 - 1}"),
    ("seed", 1.0, f"is 1.0; expected {WHOLE}"),
    ("seed", True, f"is True; expected {WHOLE}"),
    ("seed", "one", f"is 'one'; expected {WHOLE}"),
    ("seed", NAN, f"is nan; expected {WHOLE}"),
    ("seed", None, f"is None; expected {WHOLE}"),
    ("data", {}, "is {}; expected at least 1 entry"),
    ("data", [], "is []; expected names and values"),
    ("data.digits.kind", "digit", "'digit' is unknown; did you mean 'digits'?"),
    ("data.digits.train", 0, "is 0; expected at least 1"),
    ("data.digits.train", 10**12, "expected at most 1000000000"),
    ("data.digits.roots", "x", "'roots' is unknown, did you mean 'root'?"),
    ("data.digits", {"kind": "folder", "val": 1, "test": 1}, "root must be given"),
    ("data.digits", {"train": 3}, "kind must be given"),
    ("data.digits.on_error", "ignore", "'ignore' is unknown; valid: raise, skip"),
    ("data.digits.recipe", {"max_lr": INF}, f"recipe.max_lr is inf; expected {FINITE}"),
    ("download", "imagnet", "'imagnet' is unknown; did you mean 'imagenette'?"),
    ("backbones", {}, "is {}; expected at least 1 entry"),
    ("backbones.demo_vit", {}, "data must be given"),
    ("backbones.demo_vit.data", "digit", "data 'digit' is unknown; did you mean 'digits'?"),
    ("backbones.demo_vit.weights", 3, "is 3; expected a text or null"),
    ("backbones.demo_vit.weights", "", "is ''; expected some text"),
    ("backbones.demo_vit.taps", [], "is []; expected at least 1 of them"),
    ("backbones.demo_vit.taps", ["a", "a"], "is ['a', 'a']; expected each once"),
    ("backbones.demo_vit.masking", "standardized", "did you mean 'standardised'?"),
    ("backbones.demo_vit.optional", "yes", "is 'yes'; expected true or false"),
    ("backbones.demo_vit.train.max_lr", -0.1, "is -0.1; expected more than 0"),
    ("backbones.demo_vit.preprocessing", {"std": [1, 1, 0]}, "std.2 is 0; expected more than 0"),
    ("backbones.demo_vit.preprocessing", {"mean": [1, 1]}, "expected at least 3 of them"),
    (
        "backbones.demo_vit.preprocessing",
        {"mean": [0, NAN, 0]},
        f"mean.1 is nan; expected {FINITE}",
    ),
    ("backbones.demo_vit.preprocessing", {"resize": [8]}, "is [8]; expected at least 2 of them"),
    (
        "backbones.demo_vit.preprocessing",
        {"crop_mode": "squash"},
        "is unknown; valid: border, center, floor, pad",
    ),
    ("backbones.demo_vit.preprocessing", {"interpolation": "cubic"}, "did you mean 'bicubic'"),
    ("claims.resnet", "demo_rsnet", "backbone 'demo_rsnet' is unknown; did you mean 'demo_resnet'"),
    ("claims.vggs", "demo_vit", "'vggs' is unknown, did you mean 'vgg'"),
    ("train.steps", 0, "is 0; expected at least 1"),
    ("train.steps", 2.5, f"is 2.5; expected {WHOLE}"),
    ("train.batch_size", 1, "is 1; expected at least 2"),
    ("train.max_lr", NAN, f"is nan; expected {FINITE}"),
    ("train.max_lr", INF, f"is inf; expected {FINITE}"),
    ("train.max_lr", "1e-3", f"is '1e-3'; expected {FINITE}"),
    ("train.max_lr", 0, "is 0; expected more than 0"),
    ("train.max_lr", 1e9, "is 1000000000.0; expected at most 100"),
    ("train.max_lrr", 0.1, "'max_lrr' is unknown, did you mean 'max_lr'"),
    ("train.momentum", 1, "is 1; expected less than 1"),
    ("train.weight_decay", -INF, f"is -inf; expected {FINITE}"),
    ("train.weight_decay", 2, "is 2; expected at most 1"),
    ("train.workers", -1, "is -1; expected at least 0"),
    ("train.variant", "no-skip", "'no-skip' is unknown; did you mean 'no_skip'"),
    ("train.other_classes", "all", "valid: in-batch, uniform"),
    ("train.objective", "RISE", "'RISE' is unknown; valid: both, rise, ttame"),
    ("train.optimizer", "adam", "'adam' is unknown; did you mean 'adamw'"),
    ("train.masks", 1, "is 1; expected at least 2"),
    ("train.p", 1, "is 1; expected less than 1"),
    ("train.loss", {"ce": -1}, "loss.ce is -1; expected at least 0"),
    ("train.loss", {"area": INF}, f"loss.area is inf; expected {FINITE}"),
    ("train.loss", {"variation": 1e12}, "expected at most 1000000"),
    ("train.loss", {"power": 0}, "loss.power is 0; expected more than 0"),
    (
        "train.loss",
        {"lambda1": 1},
        "'lambda1' is unknown, valid: area, ce, power, q, rise, variation",
    ),
    ("trained", {"t-tam": {}}, "trained: 't-tam' is unknown; did you mean 't-tame'"),
    ("evaluate.methods", ["gradcam"], "'gradcam' is unknown; did you mean 'grad-cam'"),
    ("evaluate.methods", ["gradcam:HiResCAM"], "'gradcam:HiResCAM' is unknown; did you mean"),
    ("evaluate.limits", {"captun:Occlusion": 3}, "'captun:Occlusion' is unknown"),
    ("evaluate.limits", {"captum:Occlusion": 0}, "is 0; expected at least 1"),
    ("evaluate.options", {"captum:Occlusion": 3}, "is 3; expected names and values"),
    ("evaluate.methods", ["rise", "rise"], "expected each once"),
    ("evaluate.methods", "rise", "is 'rise'; expected a list"),
    ("evaluate.methods", [], "is []; expected at least 1 of them"),
    ("evaluate.percentages", [0], "percentages.0 is 0; expected more than 0"),
    ("evaluate.percentages", [101], "percentages.0 is 101; expected at most 100"),
    ("evaluate.percentages", [NAN], f"percentages.0 is nan; expected {FINITE}"),
    ("evaluate.percentages", [50, 50.0], "expected each once"),
    ("evaluate.limits", {"rise": 0}, "limits.rise is 0; expected at least 1"),
    ("evaluate.options", {"rise": 8}, "options.rise is 8; expected names and values"),
    ("evaluate.options.rise", {"mask": 3}, "'mask' is unknown, did you mean 'masks'"),
    ("evaluate.options.rise", {"masks": -1}, "masks is -1; expected at least 1"),
    ("evaluate.options.rise", {"masks": "8"}, f"masks is '8'; expected {WHOLE}"),
    ("evaluate.options.rise", {"masks": 8.5}, f"masks is 8.5; expected {WHOLE}"),
    ("evaluate.options.rise", {"p": 5}, "p is 5; expected less than 1"),
    ("evaluate.options.rise", {"chunk": 0}, "chunk is 0; expected at least 1"),
    ("precision", "float16", "'float16' is unknown; did you mean"),
    (
        "train.batch_size",
        100,
        "train.batch_size is 100, and data.digits.train 32; expected a batch of the images there are",
    ),
    ("trained", {"t-tame-top": {"batch_size": 33}}, "trained.t-tame-top.batch_size is 33"),
    (
        "backbones.demo_vit.train",
        {"batch_size": 64},
        "demo_vit.train.batch_size is 64, and data.digits.train 32",
    ),
    ("data.digits.train", 7, "train.batch_size is 8, and data.digits.train 7"),
    ("backbones.summary", {"data": "digits"}, "'summary' would be that of the edition itself"),
    ("backbones.Logs", {"data": "digits"}, "'Logs' would be that of the edition itself"),
    (
        "backbones..demo",
        {"data": "digits"},
        "'.demo' would be hidden; expected a name whose folder",
    ),
    ("backbones.DEMO_VIT", {"data": "digits"}, "'demo_vit' would be that of 'DEMO_VIT'"),
    ("backbones.a{b}", {"data": "digits"}, "'a{b}'; expected no braces, and no ends of lines"),
    ("ablate.backbones", ["demo_vgg"], "backbone 'demo_vgg' is unknown"),
    ("converge.backbones", ["demo_vgg"], "backbone 'demo_vgg' is unknown"),
    ("converge.changed", {"t-tame-rise": []}, "method 't-tame-rise' is unknown"),
    ("converge.changed", {"l-cam-img": []}, "method 'l-cam-img' is unknown"),
    ("converge.changed", {"t-tame": [{}]}, "t-tame.0 is {}; expected at least 1 entry"),
    ("converge.changed", {"t-tame": [{"variant": "tied"}]}, "'variant' is unknown"),
    ("ablate.seeds", [1, 1], "is [1, 1]; expected each once"),
    ("ablate", {"steps": 1}, "images, seeds must be given"),
    ("tune.max_lr", [], "is []; expected at least 1 of them"),
    ("tune.max_lr", [INF], f"max_lr.0 is inf; expected {FINITE}"),
    ("own", 1, "is 1; expected true or false"),
]
FILES = [  # in place of a configuration's file: what it holds, what the message says behind its name
    ("", "top level is None; expected names and values"),
    ("- a\n- b\n", "top level is ['a', 'b']; expected names and values"),
    ("seed: 0\nseed: 1\n", ", line 2: seed is given twice"),
    ("train:\n  steps: 1\n  steps: 2\n", ", line 3: steps is given twice"),
    ("1: a\n", ", line 1: 1 is no text; put it in quotes"),
    ("on: a\n", ", line 1: on is no text; put it in quotes"),
    ("? [a]\n: b\n", "expected names and values, as in config/demo.yaml"),
    ("seed: !!python/object/apply:os.system [true]\n", "could not determine a constructor"),
    ("a: &a 1\nb: *a\n", ", line 2: *a is an alias; write out what it stands for"),
    ("seed: !mine 3\n", ", line 1: could not determine a constructor"),
    ("seed: [\n", "expected the node content, but found '<stream end>'"),
    ("seed: 0\n\ttitle: x\n", "line 2: "),
    ("seed: 2026-13-45\n", "month must be in 1..12"),
    ("seed: \x00\n", "special characters are not allowed"),
    ("[" * 5000, "maximum recursion depth exceeded"),
    (b"title: \xff\n", "can't decode byte 0xff"),
]
COMMAND_LINE = [  # behind --config: what, and what the message says
    ({"edition": 3}, "edition is 3; expected a text"),
    ({"editon": "smoke"}, "top level: 'editon' is unknown, did you mean 'edition'"),
    ({"results": 7}, "results is 7; expected a text"),
    ({"results": None}, "results is None; expected a text"),
    ({"results": ["a"]}, "results is ['a']; expected a text"),
    ({"results": "a{b}"}, "results is 'a{b}'; expected no braces, and no ends of lines"),
    ({"results": "a\n"}, "results is 'a\\n'; expected no braces, and no ends of lines"),
    ({"results": "a\nb"}, "results is 'a\\nb'; expected no braces, and no ends of lines"),
    ({"data_root": 1.5}, "data_root is 1.5; expected a text"),
    ({"retrain": "perhaps"}, "retrain: 'perhaps' is unknown; valid: False, True, false, true"),
]
PARAMETERS = [  # of 04_evaluate, by papermill
    ({"edition": "smok"}, "edition 'smok' is unknown; did you mean 'smoke'"),
    ({"edition": "../config/smoke"}, "is unknown"),
    ({"backbone": "demo_vi"}, "did you mean 'demo_vit'"),
    ({"backbone": 3}, "is 3; expected str"),
    (
        {"methods": '["rise"]'},
        "is '[\"rise\"]'; expected list; papermill takes one by -y 'methods: [...]'",
    ),
    ({"methods": ["ris"]}, "'ris' is unknown; did you mean 'rise'"),
    ({"methods": ["rise", "rise"]}, "the parameters given, evaluate.methods is ['rise', 'rise']"),
    ({"images": 0}, "images is 0; expected at least 1"),
    ({"images": 2.0}, "is 2.0; expected int"),
    ({"images": "six"}, "is 'six'; expected int"),
    ({"seed": -1}, "seed is -1; expected at least 0"),
    ({"seed": 10**12}, "expected at most 4294967295"),
    ({"results": 5}, "is 5; expected str"),
    ({"data_root": "x"}, "choose the edition imagenette or imagenet"),
    ({"backbone": None}, "04_evaluate has no backbone; give a name by -p"),
    ({"batch_size": 3}, "has no parameter 'batch_size'"),
    ({"imags": 3}, "has no parameter 'imags'; did you mean 'images'"),
]
OF_JSONSCHEMA = (
    "is not of type",
    "required property",
    "is less than",
    "is not one of",
    "non-empty",
)


@pytest.fixture
def project(tmp_path):
    """The configurations of a project of one's own."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


def refused(project, message):
    with pytest.raises(tt.TTAMEError) as error:
        Configuration.read("smoke", root=project)
    told = str(error.value)
    assert told.startswith("config/smoke.yaml") and message in told
    assert "\n" not in told and not any(words in told for words in OF_JSONSCHEMA)
    return told


@pytest.mark.happens("Configurations and parameters", "{place}: {value}", "{message}")
@pytest.mark.parametrize(("place", "value", "message"), VALUES)
def test_a_value_that_an_edition_may_not_have(project, place, value, message):
    file = project / "config" / "smoke.yaml"
    config = section = yaml.safe_load(file.read_text())
    *path, last = re.split(r"(?<!\.)\.", place)  # backbones..a: a name that begins with a dot
    for part in path:
        section = section.setdefault(part, {})
    section[last] = value
    file.write_text(yaml.safe_dump(config))
    told = refused(project, message)
    apart = "folder" in told or "batch" in told  # what two entries have to do with each other
    assert apart or all(part in told for part in path)


@pytest.mark.happens(
    "Configurations and parameters",
    "a configuration that is empty, no mapping, not YAML or not UTF-8, with a key twice, tags or aliases",
    "refused, with the line",
)
@pytest.mark.parametrize(("text", "message"), FILES)
def test_a_file_that_is_no_configuration(project, text, message):
    file = project / "config" / "smoke.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(project, message)


@pytest.mark.happens(
    "Configurations and parameters",
    "a copied configuration whose edition is not its file's name",
    "refused",
)
def test_a_copy_that_still_has_the_other_editions_name(project):
    shutil.copy(project / "config" / "smoke.yaml", project / "config" / "mine.yaml")
    with pytest.raises(tt.TTAMEError, match="edition is 'smoke'; expected the file's name, 'mine'"):
        Configuration.read("mine", root=project)


@pytest.mark.happens("Configurations and parameters", "--config {given}", "{message}")
@pytest.mark.parametrize(("given", "message"), COMMAND_LINE)
def test_what_the_graph_may_not_be_given(given, message):
    with pytest.raises(tt.TTAMEError) as error:
        check(given, ROOT, "--config", "given")
    assert str(error.value).startswith(f"--config, {message}")


def test_what_the_graph_may_be_given():
    given = {"edition": "a b", "results": "./7", "data_root": "$(x)", "retrain": "true"}
    check(given, ROOT, "--config", "given")


@pytest.mark.happens("Configurations and parameters", "papermill with {given}", "{message}")
@pytest.mark.parametrize(("given", "message"), PARAMETERS)
def test_parameters_that_no_notebook_takes(tmp_path, given, message):
    parameters = {"edition": "smoke", "backbone": "demo_vit", "results": str(tmp_path)}
    with pytest.raises(tt.TTAMEError) as error:
        tb.start_run("04_evaluate", parameters | given)
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.happens(
    "Configurations and parameters",
    "a learning rate that is NaN or infinite",
    "refused before anything runs",
)
def test_a_rate_that_is_no_number_stops_a_training(tmp_path):
    given = {"edition": "smoke", "backbone": "demo_vit", "results": str(tmp_path)}
    for rate in (NAN, INF, -INF):
        with pytest.raises(tt.TTAMEError, match=rf"max_lr is {rate}; expected {FINITE}"):
            tb.start_run("03_train", given | {"max_lr": rate})


@pytest.mark.happens(
    "Configurations and parameters",
    "two backbones whose folders would have one name, as `a/b` and `a-b`",
    "refused, both named",
)
def test_backbones_whose_folders_would_be_one(project):
    file = project / "config" / "smoke.yaml"
    config = yaml.safe_load(file.read_text())
    config["backbones"] |= {name: {"data": "digits"} for name in ("timm/resnet18", "timm-resnet18")}
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    refused(project, "'timm-resnet18' of 'timm-resnet18' would be that of 'timm/resnet18'")


def test_a_batch_may_hold_all_the_images_there_are(project):
    file = project / "config" / "smoke.yaml"
    config = yaml.safe_load(file.read_text())
    config["train"]["batch_size"] = 500
    for name in config["backbones"]:
        config["backbones"][name]["train"] = {"batch_size": 32}
    file.write_text(yaml.safe_dump(config))
    Configuration.read("smoke", root=project)


LOADABLE = [  # only told where torch is loaded: place, value, what the message says behind the place
    ("backbones.nosuch", {"data": "digits"}, "backbone 'nosuch' is unknown"),
    ("backbones.resnet81", {"data": "digits"}, "did you mean"),
    (
        "backbones.demo_vit.preprocessing",
        {"image_size": 300, "resize": 100},
        "resize of a preprocessing is 100; expected at least image_size, 300",
    ),
    (
        "backbones.demo_vit.preprocessing",
        {"mean": [123, 116, 103], "std": [58, 57, 57]},
        "expected three of [0, 1]: divide those of 0-255",
    ),
    ("evaluate.options", {"rise": {"steps": 3}}, "rise: 'steps' is no option of it; valid: cells"),
    ("evaluate.options", {"grad-cam": {"masks": 3}}, "'masks' is no option of it; it takes none"),
    ("evaluate.options", {"t-tame": {"masks": 3}}, "'masks' is no option of it; it takes none"),
    ("evaluate.methods", ["grad-cam:HiRes"], "evaluate.methods: 'grad-cam:HiRes' is none of"),
    ("backbones.demo_vit.limits", {"captum:Lme": 3}, "demo_vit.limits: 'captum:Lme' is none of"),
    ("evaluate.limits", {"captum:Oclusion": 3}, "evaluate.limits: 'captum:Oclusion' is none of"),
    (
        *("evaluate.options", {"captum:Occlusion": {"stride": [3]}}),
        "evaluate.options.captum:Occlusion: 'stride' is no option of it; did you mean 'strides'?",
    ),
    ("backbones.demo_vit.options", {"iia": {"p": 0.5}}, "iia: 'p' is no option of it"),
]


@pytest.mark.happens("Configurations and parameters", "{place}: {value}", "{message}")
@pytest.mark.parametrize(("place", "value", "message"), LOADABLE)
def test_what_no_library_has_and_no_method_takes_is_refused_before_a_run(
    project, monkeypatch, place, value, message
):
    file = project / "config" / "smoke.yaml"
    config = section = yaml.safe_load(file.read_text())
    *path, last = place.split(".")
    for part in path:
        section = section[part]
    section[last] = value
    file.write_text(yaml.safe_dump(config))
    Configuration.read("smoke", root=project)  # which loads no torch
    with pytest.raises(tt.TTAMEError) as error:
        tb.Edition.read("smoke", root=project)
    assert str(error.value).startswith(f"config/smoke.yaml, {path[0]}") and message in str(
        error.value
    )
    (project / "notebooks").symlink_to(ROOT / "notebooks")
    monkeypatch.chdir(project)
    given = {"edition": "smoke", "backbone": "demo_vit", "results": "there"}
    with pytest.raises(tt.TTAMEError, match=r"^config/smoke\.yaml"):
        tb.start_run("04_evaluate", given)
    assert not (project / "there").exists()


@pytest.mark.happens(
    "Configurations and parameters",
    "a configuration compares a class of grad-cam or Captum, with options and a limit",
    "as any method; lists are taken for the tuples that Captum wants",
)
def test_a_class_of_a_library_is_a_line_of_a_configuration(project):
    file = project / "config" / "smoke.yaml"
    config = yaml.safe_load(file.read_text())
    options = {"sliding_window_shapes": [3, 16, 16], "strides": [3, 16, 16]}
    config["evaluate"] |= {
        "methods": ["t-tame", "captum:Occlusion", "grad-cam:HiResCAM"],
        "limits": {"captum:Occlusion": 2},
    }
    config["evaluate"].setdefault("options", {})["captum:Occlusion"] = options
    file.write_text(yaml.safe_dump(config))
    edition = tb.Edition.read("smoke", root=project)
    assert edition.config["evaluate"]["options"]["captum:Occlusion"] == options


def test_published_sizes_may_be_overruled_one_by_one(project):
    file = project / "config" / "smoke.yaml"
    config = yaml.safe_load(file.read_text())
    for given in ({"image_size": 448}, {"resize": 100}, {"mean": [0.5, 0.5, 0.5]}):
        config["backbones"]["demo_vit"]["preprocessing"] = given
        file.write_text(yaml.safe_dump(config))
        tb.Edition.read("smoke", root=project)


def test_the_options_that_a_configuration_may_have_are_those_of_the_methods():
    schema = yaml.safe_load((ROOT / "config" / "schema.yaml").read_text())
    options = schema["$defs"]["options"]["additionalProperties"]["properties"]
    assert options.keys() == set(chain(*map(options_of, METHODS)))


def test_the_precisions_that_a_configuration_may_have_are_the_classifiers():
    schema = yaml.safe_load((ROOT / "config" / "schema.yaml").read_text())
    assert schema["properties"]["precision"]["enum"] == list(PRECISIONS)


def test_at_least_sixty_bad_inputs_are_tried():
    tables = (VALUES, FILES, COMMAND_LINE, PARAMETERS)
    assert sum(map(len, tables)) >= 85 and all(map(len, tables))
