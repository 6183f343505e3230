"""The project's own files: configurations, lock, notebooks, README."""

import ast
import json
import re
import tomllib
from importlib.util import find_spec
from itertools import chain
from pkgutil import resolve_name

import pandas as pd
import pytest
import yaml

import ttame_book as tb
import ttame_core as tt
from tests.commands import ROOT
from tests.project.test_pages import pages
from ttame_book.editions.configuration import SETTINGS, validate
from ttame_book.editions.graph import STEPS
from ttame_book.editions.runs import parameters_of
from ttame_book.report.intervals import means_table
from ttame_book.report.names import shown_name
from ttame_core.__main__ import main
from ttame_core.pretrained import shipped_explainers

CONFIGS = sorted(p.stem for p in (ROOT / "config").glob("*.yaml") if p.stem != "schema")
PACKAGES = ("ttame_core", "ttame_book")
PINS = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[.*\])?==([^ ;]+)", re.MULTILINE)


def notebook_files():
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("name", CONFIGS)
def test_config_keeps_to_the_schema(name):
    edition = tb.Edition.read(name, root=ROOT)
    assert edition.name == name
    for backbone in edition.backbones:
        assert edition.recipe(backbone).steps > 0
        assert edition.entry(backbone)["data"] in edition.config["data"]


def test_config_with_an_unknown_key_names_the_nearest():
    config = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    config["train"]["max_lrr"] = 1.0
    with pytest.raises(tt.TTAMEError, match="train: 'max_lrr' is unknown, did you mean 'max_lr'"):
        validate(config, ROOT, "here")


def test_config_with_an_impossible_value_says_where():
    config = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    config["backbones"]["demo_vit"]["train"] = {"batch_size": 1}
    with pytest.raises(
        tt.TTAMEError, match=r"demo_vit\.train\.batch_size is 1; expected at least 2"
    ):
        validate(config, ROOT, "here")


def test_lock_pins_every_dependency_by_hash_and_names_no_host():
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert "--index-url" not in lock
    pins = {name.lower().replace("_", "-"): v for name, v in PINS.findall(lock)}
    for block in re.split(r"\n(?=[A-Za-z])", lock.strip()):
        assert "--hash=sha256:" in block, block.splitlines()[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    names = {re.split(r"[<>=\[]", each)[0].lower().replace("_", "-") for each in wanted}
    missing = names - {project["name"].replace("_", "-")} - pins.keys()  # extras of its own
    assert not missing
    assert tuple(map(int, pins["torch"].split(".")[:2])) >= (2, 14)


def test_environment_yml_takes_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert "-r requirements.lock" in " ".join(pip)


def code_cells(file):
    return [c for c in json.loads(file.read_text())["cells"] if c["cell_type"] == "code"]


@pytest.mark.parametrize("file", notebook_files(), ids=lambda f: f.stem)
def test_notebook_is_clean_and_small(file):
    assert file.stat().st_size < 30_000
    notebook = json.loads(file.read_text())
    assert notebook["metadata"]["language_info"]["name"] == "python"
    code = code_cells(file)
    assert not any(c["outputs"] or c["execution_count"] for c in code)
    functions = [
        node
        for c in code
        for node in ast.walk(ast.parse("".join(c["source"])))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    ]
    assert not [f.name for f in functions if f.end_lineno - f.lineno > 10]


@pytest.mark.parametrize("file", notebook_files(), ids=lambda f: f.stem)
def test_a_notebooks_parameters_are_typed_literals_with_a_meaning_and_an_effect(file):
    (cell,) = (c for c in code_cells(file) if "parameters" in c["metadata"].get("tags", []))
    values = {}
    for line in ast.parse("".join(cell["source"])).body:
        values[line.target.id] = ast.literal_eval(line.value)
    known = parameters_of(file)
    assert list(known) == list(values)
    rest = "\n".join("".join(c["source"]) for c in code_cells(file) if c is not cell)
    read = {n.id for n in ast.walk(ast.parse(rest)) if isinstance(n, ast.Name)}
    for name, parameter in known.items():
        assert parameter.inferred_type_name in ("str", "int", "float", "list"), name
        assert len(parameter.help) > 5, name
        value = values[name]
        assert value is None or type(value).__name__ == parameter.inferred_type_name, name
        assert name in {*SETTINGS, "edition", "results"} or name in read, name
        if name in SETTINGS:
            assert value is None, name  # the edition's
    of_all = {"edition", "results"}
    if file.stem in {step.notebook for step in STEPS}:
        of_all |= {"backbone", "data_root", "seed"}
    assert of_all <= known.keys()
    assert ("backbone" in known) == (file.stem in {step.notebook for step in STEPS})


@pytest.mark.parametrize("file", notebook_files(), ids=lambda f: f.stem)
def test_what_a_notebook_imports_and_takes_from_the_packages_is_there(file):
    assert not missing_names("\n".join("".join(c["source"]) for c in code_cells(file)))


def missing_names(code):
    """What code imports from the packages, or takes from ``tt`` and ``tb``, and is not there."""
    tree = ast.parse(code)
    packages = {"tt": tt, "tb": tb}
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in PACKAGES:
            names += [f"{node.module}:{each.name}" for each in node.names]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            package = packages.get(node.value.id)
            names += [f"{package.__name__}:{node.attr}"] if package else []
    return [name for name in names if not there(name)]


def there(name):
    try:
        resolve_name(name)
    except AttributeError:
        module, _, last = name.partition(":")
        return find_spec(f"{module}.{last}") is not None
    return True


def test_the_readme_names_files_and_targets_that_exist():
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", readme, re.MULTILINE))
    assert {"book", "test"} <= named <= targets
    for link in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (ROOT / link).exists(), link
    listed = set(re.findall(r"\(notebooks/(\w+)\.ipynb\)", readme))
    assert listed == {file.stem for file in notebook_files()}
    for file in re.findall(r"notebooks/\w+\.ipynb", readme):
        assert (ROOT / file).is_file(), file


def test_the_readmes_code_uses_what_is_there(capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        assert not missing_names(block)
    with pytest.raises(SystemExit):
        main(["explain", "--help"])
    known = set(re.findall(r"--[a-z]+", capsys.readouterr().out))
    for command in re.findall(r"`(python -m ttame_core [^`]*)`", (ROOT / "README.md").read_text()):
        options = re.findall(r"--[a-z]+", command)
        assert set(options) <= known, command


def tables_of(file):
    """Labels and rows of each of a file's tables of AD and IC."""
    tables = []
    for line in (ROOT / file).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and "AD(50)" in line:
            tables.append([cells])
        elif line.startswith("|") and "±" in line:
            tables[-1].append(cells)
    return tables


def test_the_readme_answers_as_the_books_first_page_does():
    told = pages.chapters.facts(pages.COMMITTED)
    readme = " ".join((ROOT / "README.md").read_text().split())
    table = pages.chapters.answer_table(pages.COMMITTED)
    assert " ".join(table.split()) in readme
    ends = [f"{told[key]} {key.replace('_', ' ')}" for key in ("confirmed", "not_confirmed")]
    assert f"of {told['claims']} claims {', '.join(ends)}, {told['undecided']} undecided" in readme
    assert f"to {told['steps']} steps" in readme
    assert f"on {told['photographs']} photographs" in readme and f"{told['masks']} masks" in readme


OF_CARDS = {"longer": 500, "imagenette": 200, "other-classes": 200}
"""Editions whose photographs the model cards tell of, and how many; the first that has scores, and
the last."""


def test_the_model_card_shows_the_committed_numbers():
    card = "ttame_core/explainers/README.md"
    shipped = re.findall(r"^## (\w+)", (ROOT / card).read_text(), re.MULTILINE)
    assert sorted(shipped) == shipped_explainers()
    places = []
    for backbone in shipped:
        files = {e: ROOT / "results" / e / backbone / "scores.parquet" for e in OF_CARDS}
        there = [(backbone, edition, file) for edition, file in files.items() if file.is_file()]
        places += [there[0], there[-1]]
    for (backbone, edition, file), table in zip(places, tables_of(card), strict=True):
        (_, *labels), *rows = table
        scores = pd.read_parquet(file)
        means = means_table(scores[scores["measure"].isin(tt.MASKING)])
        means = means[means["n"] == OF_CARDS[edition]]  # as the card says
        half = (means["high"] - means["low"]) / 2
        cells = [
            f"{mean:.1f} ±{apart:.1f}" for mean, apart in zip(means["mean"], half, strict=True)
        ]
        names = means["measure"].str.upper() + "(" + means["v"].astype(int).astype(str) + ")"
        told = dict(
            zip(zip(means["method"].map(shown_name), names, strict=True), cells, strict=True)
        )
        for label, *shown in rows:
            name = shown_name("t-tame-top") if label == "this explainer" else label
            expected = [told[name, column.rstrip(" ↓↑")] for column in labels]
            assert shown == expected, (backbone, edition, label)
        assert len(rows) >= 3
