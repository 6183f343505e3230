"""The walls between the rooms, what each room pulls in, and what the core may know."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT

CORE = sorted((ROOT / "ttame_core").rglob("*.py"))
BOOK = sorted((ROOT / "ttame_book").rglob("*.py"))
DATA_SETS = {"torchvision.datasets", "sklearn", "skimage", "foolbox"}


def imports(file):
    """Modules that a file imports anywhere, functions included, with names that may be modules."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)


def crossing(files, *forbidden):
    """Imports of files that begin with what they may not."""
    return [
        (file.relative_to(ROOT).as_posix(), name)
        for file in files
        for name in imports(file)
        if any(name == wall or name.startswith(f"{wall}.") for wall in forbidden)
    ]


def room(name):
    return sorted((ROOT / "ttame_core" / name).glob("*.py"))


def test_the_core_never_imports_the_book():
    assert not crossing(CORE, "ttame_book", "papermill", "snakemake", "jsonschema", "yaml")
    assert not [f.name for f in CORE if "ttame_book" in f.read_text()]


def test_classifiers_know_no_data_set():
    assert not crossing(room("classifiers"), *DATA_SETS, "ttame_core.images.folders")


def test_measures_know_no_methods_and_methods_no_configuration():
    assert not crossing(room("metrics"), "ttame_core.methods", "ttame_core.explainer")
    assert not crossing(room("methods"), "ttame_core.training", "ttame_core.explainer", "yaml")


def test_reports_and_studies_do_not_import_each_other_in_a_circle():
    studies = sorted((ROOT / "ttame_book" / "studies").glob("*.py"))
    assert not crossing(studies, "ttame_book.report")
    editions = sorted((ROOT / "ttame_book" / "editions").glob("*.py"))
    assert not crossing(editions, "ttame_book.studies")


def texts(file):
    """Strings of a file, docstrings included."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("file", CORE, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_no_text_of_the_core_names_a_notebook_an_edition_or_make(file):
    notebooks = {f.stem for f in (ROOT / "notebooks").glob("*.ipynb")}
    editions = {f.stem for f in (ROOT / "config").glob("*.yaml")} - {"schema"}
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    words = "|".join([*notebooks, *(f"make {target}" for target in targets)])
    forbidden = re.compile(
        rf"\b({words}|notebooks?|papermill|Snakemake|data_root)\b", re.IGNORECASE
    )
    for text in texts(file):
        assert not forbidden.search(text), text
        assert text not in editions or text == "demo", text
        assert not re.search(r"\bedition\b", text), text


def test_no_module_is_long_and_the_core_is_thin():
    lines = {file: len(file.read_text().splitlines()) for file in (*CORE, *BOOK)}
    assert not {str(file): count for file, count in lines.items() if count > 350}
    top = sum(lines[file] for file in CORE if file.parent.name == "ttame_core")
    core = sum(lines[file] for file in CORE)
    assert top <= 2400
    assert core <= 9000
    assert sum(lines.values()) <= 15000


BLOCK = """
import sys
for name in {blocked}:
    sys.modules[name] = None  # an import of it fails
import torch
import ttame_core as tt
"""
EXTRAS = (
    *("captum", "pytorch_grad_cam", "numba", "jsonschema", "IPython", "matplotlib", "seaborn"),
    *("sklearn", "skimage", "scipy", "papermill", "foolbox", "tabulate"),
    *("transformers", "lightning", "pytorch_lightning", "snakemake", "pyarrow", "ttame_book"),
)
USES = """
backbone = tt.load_backbone("resnet18", None, preprocessing={"image_size": 64, "resize": 64})
images = torch.rand(4, 3, 64, 64)
explainer = tt.TTAME(backbone)
recipe = tt.Recipe(steps=2, batch_size=2, max_lr=0.01)
tt.train(explainer, [{"image": image} for image in images], recipe, progress=tt.Progress("x"))
methods = {"t-tame": explainer, "rise": tt.method("rise", backbone, masks=4)}
batches = [{"image": images, "id": list("abcd")}]
scores = tt.evaluate(backbone, methods, batches, {**tt.MASKING, **tt.ROAD, **tt.CURVES})
assert len(scores) > 2 * 4 * 30
for name, extra in (("grad-cam", "methods"), ("integrated-gradients", "methods")):
    try:
        tt.method(name, backbone)
        raise SystemExit(f"{name} was made")
    except tt.TTAMEError as error:
        assert f"pip install 'ttame_core[{extra}]'" in str(error), error
photo = sys.argv[1]
from PIL import Image
Image.new("RGB", (80, 70), "teal").save(photo)
from ttame_core.__main__ import explain_photos
from ttame_core.images.folders import find_photos
from pathlib import Path
rows = explain_photos(explainer, find_photos([Path(photo)]), Path(photo).parent / "out", top=2)
assert len(rows) == 2
try:
    explainer(photo).plot()
    raise SystemExit("drawn without matplotlib")
except tt.TTAMEError as error:
    assert "pip install 'matplotlib'" in str(error), error
print("all that the base install promises")
"""


def python(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_explaining_training_and_scoring_need_the_base_install_alone(tmp_path):
    code = BLOCK.format(blocked=EXTRAS) + USES
    assert "all that the base install promises" in python(code, tmp_path / "photo.png")


ROOMS = {
    "import ttame_core": {"torch", "pandas", "timm"},
    "from ttame_core.recipes import Recipe; from ttame_core.methods.registry import METHODS": {
        "torch",
        "pandas",
        "timm",
    },
    "import ttame_core as tt; tt.Backbone, tt.load_backbone": {"pandas"},
    "tt.method": {"pandas"},
    "tt.evaluate": set(),
}
"""What is imported, one after the other, and what of the base install that must not load."""
HEAVY = {
    *("sklearn", "skimage", "IPython", "captum", "pytorch_grad_cam", "lightning_fabric"),
    *("matplotlib", "seaborn", "numba"),
}


@pytest.fixture(scope="module")
def loaded():
    """The modules loaded after each of `ROOMS`, and by then a classifier that is registered."""
    told = "print(*sys.modules)"
    demo = "print(tt.load_backbone('demo_vgg', None).name)"
    lines = python("import sys\n" + "\n".join(f"{use}\n{told}" for use in ROOMS) + f"\n{demo}")
    *rooms, name = lines.splitlines()
    return dict(zip(ROOMS, map(set, map(str.split, rooms)), strict=True)), name


@pytest.mark.parametrize("used", ROOMS)
def test_importing_a_room_loads_no_other(used, loaded):
    found, _ = loaded
    assert "ttame_core" in found[used]
    assert not found[used] & (HEAVY | ROOMS[used])
    assert not [name for name in found[used] if name.startswith("ttame_book")]


def test_the_graphs_steps_load_no_torch():
    found = set(
        python(
            "from ttame_book.editions.graph import STEPS\nimport sys\nprint(*sys.modules)"
        ).split()
    )
    assert "ttame_book.editions.graph" in found and not found & {*HEAVY, "torch", "pandas"}


def test_the_package_is_found_by_the_names_that_it_lists():
    import ttame_book
    import ttame_core

    for package in (ttame_core, ttame_book):
        assert package.__all__ == dir(package)
        for name in package.__all__:
            assert getattr(package, name) is not None
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = package.nothing


def test_entry_points_name_modules_that_exist(loaded):
    text = (Path(ROOT) / "pyproject.toml").read_text()
    assert '[project.entry-points."ttame_core.classifiers"]' in text
    assert loaded[1] == "demo_vgg"  # in a process that has imported nothing of the book
