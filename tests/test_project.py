"""The project's own files: configurations, lock, notebooks, README."""

import ast
import json
import re
import tomllib
from itertools import chain
from pathlib import Path

import pandas as pd
import pytest
import yaml

import ttame_core as tt
from ttame_core.configuration import validate
from ttame_core.ready import shipped_explainers
from ttame_core.runs import NOTEBOOKS, PARAMETERS

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(p.stem for p in (ROOT / "config").glob("*.yaml") if p.stem != "schema")
PINS = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[.*\])?==([^ ;]+)", re.MULTILINE)


def notebook_files():
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("name", CONFIGS)
def test_config_keeps_to_the_schema(name):
    edition = tt.Edition.read(name, root=ROOT)
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
    with pytest.raises(tt.TTAMEError, match=r"backbones\.demo_vit\.train\.batch_size: 1 is less"):
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
    missing = {re.split(r"[<>=\[]", d)[0].lower().replace("_", "-") for d in wanted} - pins.keys()
    assert not missing
    assert tuple(map(int, pins["torch"].split(".")[:2])) >= (2, 14)


def test_environment_yml_takes_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert "-r requirements.lock" in " ".join(pip)


@pytest.mark.parametrize("file", notebook_files(), ids=lambda f: f.stem)
def test_notebook_is_clean_small_and_has_known_literal_parameters(file):
    assert file.stat().st_size < 30_000
    notebook = json.loads(file.read_text())
    assert notebook["metadata"]["language_info"]["name"] == "python"
    code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert not any(c["outputs"] or c["execution_count"] for c in code)
    cells = [c for c in code if "parameters" in c["metadata"].get("tags", [])]
    assert len(cells) == 1
    names = set()
    for line in ast.parse("".join(cells[0]["source"])).body:
        names.add(line.targets[0].id)
        ast.literal_eval(line.value)
    assert names == set(NOTEBOOKS[file.stem])
    assert names <= PARAMETERS.keys()
    functions = [
        node
        for c in code
        for node in ast.walk(ast.parse("".join(c["source"])))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    ]
    assert not [f.name for f in functions if f.end_lineno - f.lineno > 10]


def test_every_notebook_is_in_the_graph():
    graph = (ROOT / "Snakefile").read_text()
    for file in notebook_files():
        assert file.stem in graph


def test_the_readme_names_files_and_targets_that_exist():
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z]+)", readme, re.MULTILINE)) <= targets
    for link in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (ROOT / link).exists(), link
    for file in re.findall(r"notebooks/\w+\.ipynb", readme):
        assert (ROOT / file).is_file(), file


def committed_numbers():
    """Means as the committed table shows them, the best in bold."""
    text = (ROOT / "results" / "imagenette" / "summary" / "masking.md").read_text()
    labels, _, *rows = [
        [c.strip() for c in line.strip("|").split("|")] for line in text.split("\n")
    ]
    return pd.DataFrame(rows[:-1], columns=labels).set_index(["backbone", "method"])


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


def test_the_readme_shows_the_committed_numbers():
    committed = committed_numbers()
    real, demo = tables_of("README.md")
    (_, _, *labels), *rows = real
    assert {backbone for backbone, *_ in rows} == set(committed.index.unique("backbone"))
    assert {backbone for backbone, *_ in demo[1:]} < set(tt.Edition.read("demo").backbones)
    assert demo[0] == real[0]
    for backbone, method, *cells in rows:
        assert cells == committed.loc[(backbone, method), labels].tolist(), method


def test_the_model_card_shows_the_committed_numbers():
    committed, names = committed_numbers(), {"Grad-CAM": "grad-cam"}
    card = "ttame_core/explainers/README.md"
    shipped = re.findall(r"^## (\w+)", (ROOT / card).read_text(), re.MULTILINE)
    assert sorted(shipped) == shipped_explainers()
    for backbone, ((_, *labels), *rows) in zip(shipped, tables_of(card), strict=True):
        for label, *cells in rows:
            method = names.get(label) or label.split("`")[1]
            expected = committed.loc[(backbone, method), labels].str.strip("*").tolist()
            assert cells == expected, (backbone, label)
