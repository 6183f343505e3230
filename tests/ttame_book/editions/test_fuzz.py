"""Whatever is put into configurations, parameters and results: a TTAMEError says so, or it is fine."""

import json
import shutil

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ttame_book as tb
import ttame_core as tt
from tests.commands import ROOT
from ttame_book.editions.configuration import Configuration
from ttame_book.editions.edition import read_result
from ttame_book.editions.manifest import read_manifest
from ttame_book.editions.runs import check_parameters, parameters_of

QUICK = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,  # the same tries for all, so that none fails by chance
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 2**64, 1e308])
TEXTS = st.text(max_size=8) | st.sampled_from(["", ".", "a/b", "rise", "demo_vit", "on", "1e-3"])
PLAIN = st.none() | st.booleans() | NUMBERS | TEXTS | st.dates()
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | NUMBERS, inner, max_size=3),
    max_leaves=6,
)
SMOKE = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())


def places(section, path=()):
    """Every place of a configuration, as its keys."""
    keys = section if isinstance(section, dict) else range(len(section))
    for key in keys:
        yield (*path, key)
        if isinstance(section[key], dict | list):
            yield from places(section[key], (*path, key))


@pytest.fixture
def project(tmp_path):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


def fine_or_told(read, *arguments, **options):
    """What is read, or None where a TTAMEError says why not; any other error comes through."""
    try:
        return read(*arguments, **options)
    except tt.TTAMEError as error:
        assert str(error)
    return None


@QUICK
@given(place=st.sampled_from(sorted(places(SMOKE), key=str)), value=VALUES, name=TEXTS | st.none())
@pytest.mark.slow
def test_any_value_at_any_place_of_a_configuration(project, place, value, name):
    config = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    section = config
    for key in place[:-1]:
        section = section[key]
    if name is None or isinstance(section, list):
        section[place[-1]] = value
    else:
        section[name] = value  # another key, beside it
    (project / "config" / "smoke.yaml").write_text(yaml.safe_dump(config))
    read = fine_or_told(Configuration.read, "smoke", root=project)
    if read:
        assert {read.folder(each).parent for each in read.backbones} <= {read.results}
        fine_or_told(tb.Edition.read, "smoke", root=project)


@QUICK
@given(text=st.text(max_size=60) | st.binary(max_size=60))
def test_any_text_as_a_configuration(project, text):
    file = project / "config" / "smoke.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    with pytest.raises(tt.TTAMEError, match=r"config/smoke\.yaml"):
        Configuration.read("smoke", root=project)


KNOWN = parameters_of(ROOT / "notebooks" / "03_train.ipynb")


@QUICK
@given(given=st.dictionaries(st.sampled_from([*KNOWN, "stepz"]), VALUES, max_size=4))
def test_any_parameters_of_a_notebook(given):
    wanted = {"edition": "smoke", "backbone": "demo_vit", "results": "results"} | given
    checked = fine_or_told(check_parameters, "03_train", wanted)
    if checked:
        assert set(checked[0]) <= set(KNOWN) and checked[1].recipe("demo_vit").steps >= 1


TABLE = pd.DataFrame({"method": ["rise", "iia"], "value": [1.5, 2.0]})


@QUICK
@given(junk=st.binary(max_size=40), cut=st.integers(0, 3000), keep=st.booleans())
def test_any_bytes_in_the_place_of_a_result(tmp_path, junk, cut, keep):
    writers = {
        "a.parquet": (TABLE.to_parquet, pd.read_parquet),
        "a.csv": (TABLE.to_csv, pd.read_csv),
        "a.json": (
            lambda f: f.write_text(json.dumps({"device": "cpu"})),
            lambda f: json.loads(f.read_text()),
        ),
    }
    for name, (write, read) in writers.items():
        file = tmp_path / name
        write(file)
        file.write_bytes((file.read_bytes()[:cut] if keep else b"") + junk)
        fine_or_told(read_result, file, read)


@QUICK
@given(text=st.binary(max_size=30) | VALUES.map(lambda v: json.dumps(v, default=str).encode()))
def test_any_bytes_in_the_place_of_a_manifest(tmp_path, text):
    (tmp_path / "04_evaluate.json").write_bytes(text)
    with pytest.raises(tt.TTAMEError, match=r"04_evaluate\.json is broken .*run the notebook"):
        read_result(tmp_path / "04_evaluate.json", read_manifest)
