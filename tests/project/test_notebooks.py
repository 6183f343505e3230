"""The smoke edition end to end: the graph, the notebooks, the book with warnings as errors."""

import json
import re
import shutil
from urllib.parse import unquote, urldefrag

import pandas as pd
import pytest

import ttame_book as tb
from tests.browser import examine
from tests.commands import ROOT, call
from tests.project.kernels import forked_kernels

BACKBONES = ("demo_resnet", "demo_vit")
pytestmark = pytest.mark.slow


PROJECT = ("Snakefile", "config", "notebooks", "book", "profiles", "ttame_core", "ttame_book")


def snakemake(project, *options, **environment):
    words = ("snakemake", "--cores", "2", *options, "--config", "edition=smoke")
    done = call(*words, cwd=project, **environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project in which the whole smoke edition has been run once."""
    copy = tmp_path_factory.mktemp("project")
    for name in PROJECT:
        part = ROOT / name
        shutil.copytree(part, copy / name) if part.is_dir() else shutil.copy(part, copy / name)
    # numba's cache, so that what is compiled here or elsewhere is not compiled again
    here, compiled = (place / "ttame_core" / "metrics" / "__pycache__" for place in (copy, ROOT))
    compiled.mkdir(exist_ok=True)
    shutil.rmtree(here, ignore_errors=True)
    here.symlink_to(compiled)
    (copy / "results").mkdir()
    for name in ("imagenette", "other-classes", "more-photographs", "amortised-rise", "longer"):
        (copy / "results" / name).symlink_to(ROOT / "results" / name)
    with forked_kernels(copy, tmp_path_factory.mktemp("kernels")) as kernels:
        snakemake(copy, **kernels)
        # by a kernel that is there, where one alone would import for seconds to say this
        words = ("notebooks/04_evaluate.ipynb", "mistyped.ipynb", "-p", "backbnoe", "demo_resnet")
        done = call("papermill", *words, cwd=copy, **kernels)
        (copy / "mistyped.txt").write_text(f"{done.returncode} {done.stderr}")
    return copy


@pytest.fixture
def smoke(project):
    """Its results."""
    return project / "results" / "smoke"


def test_scores_hold_every_image_method_and_measure(smoke):
    for backbone in BACKBONES:
        scores = pd.read_parquet(smoke / backbone / "scores.parquet")
        own = "transformer-lrp" if backbone == "demo_vit" else "l-cam-img"
        shared = {"t-tame", "grad-cam", "rise", "brightness", "random", "all-ones"}
        assert set(scores["method"]) == {own, *shared}
        assert scores[scores["method"] == "rise"]["image_id"].nunique() == 8
        scored = scores[scores["measure"] != "invalid"]
        keys = [(m, v) for m in ("ad", "ic") for v in (100, 50, 15)]
        keys += [("confidence", 100), ("coverage", 100), ("pointing", 100), ("energy", 100)]
        counts = scored.groupby(["method", "measure", "v"]).size()
        assert set(counts.loc["random"].index) == set(keys)
        assert (counts.loc[["random", "all-ones"]] == 24).all()
        bad = scores[scores["measure"] == "invalid"].groupby("method")["value"].sum()
        for method, number in bad.items():
            assert (counts.loc[method] == (8 if method == "rise" else 24) - number).all()
        assert scored["value"].between(0, 100).all()
        assert set(scores["backbone"]) == {backbone}


def test_road_scores_hold_every_percentage(smoke):
    for backbone in BACKBONES:
        scores = pd.read_parquet(smoke / backbone / "road.parquet")
        curve = scores[(scores["method"] == "random") & (scores["measure"] == "morf")]
        assert sorted(curve["v"].unique()) == list(range(10, 100, 10))
        assert (curve.groupby("v").size() == 6).all()


def test_every_manifest_says_what_made_it(smoke):
    files = [f for f in smoke.rglob("[0-9][0-9]_*.json") if "book" not in f.parts]
    manifests = [json.loads(file.read_text()) for file in files]
    both = (
        "03_train",
        "04_evaluate",
        "05_road",
        "06_qualitative",
        "10_sanity",
        "11_counterfactual",
    )
    studied = ("07_ablations", "08_hyperparameters", "09_convergence")
    assert {(m["notebook"], m["parameters"].get("backbone")) for m in manifests} == {
        *((notebook, backbone) for notebook in both for backbone in BACKBONES),
        *((notebook, "demo_vit") for notebook in studied),
        ("12_compare", None),
    }
    assert len(manifests) == 16
    for manifest in manifests:
        assert manifest["command"].startswith(f"papermill notebooks/{manifest['notebook']}.ipynb")
        assert manifest["seed"] == 0


def test_nothing_is_left_half_written_or_in_the_repository(smoke):
    names = [f.name for f in smoke.rglob("*") if "book" not in f.parts]
    assert not [n for n in names if ".part" in n or n.endswith(".checkpoint") or n.startswith(".")]
    assert not list((ROOT / "notebooks").glob("*-out.ipynb"))


def test_a_mistyped_parameter_stops_the_notebook(project):
    code, told = (project / "mistyped.txt").read_text().split(maxsplit=1)
    assert code != "0" and "has no parameter 'backbnoe'; did you mean 'backbone'" in told


def test_an_unchanged_edition_runs_nothing_again(project):
    assert "Nothing to be done" in snakemake(project)


def test_a_changed_setting_runs_only_what_depends_on_it(project):
    file = project / "config" / "smoke.yaml"
    before = file.read_text()
    for old, new, rules in (
        ("sanity: {images: 3}", "sanity: {images: 2}", {"sanity"}),
        ("road_images: 6", "road_images: 5", {"road"}),
    ):
        assert old in before
        file.write_text(before.replace(old, new))
        planned = snakemake(project, "--dry-run", "--quiet", "reason")
        found = set(re.findall(r"^(\w+) +\d+$", planned, flags=re.MULTILINE)) - {"total"}
        assert found == {*rules, "compare", "book", "all"}
    file.write_text(before)


def test_the_book_has_a_page_for_every_notebook_and_loads_nothing_from_elsewhere(smoke):
    html = smoke / "book" / "_build" / "html"
    pages = ["intro", "12_compare", "method", "measures", "provenance"]
    pages += [
        f"{b}/{n}"
        for b in BACKBONES
        for n in (
            "03_train",
            "04_evaluate",
            "05_road",
            "06_qualitative",
            "10_sanity",
            "11_counterfactual",
        )
    ]
    for page in pages:
        text = (html / f"{page}.html").read_text()
        loaded = re.findall(r'<(?:script|img|link|iframe)[^>]+?(?:src|href)="(https?:[^"]+)"', text)
        assert not loaded, page
        assert "Traceback" not in text
        assert "<pre><span></span>None" not in text, page  # an output
    overview = (html / "12_compare.html").read_text()
    for word in ("demo_resnet", "demo_vit", "AD(15)", "Reproduce this page"):
        assert word in overview
    assert 'alt=""' not in overview


def test_costs_are_there_for_every_method(smoke):
    costs = pd.read_csv(smoke / "summary" / "costs.csv").set_index(["backbone", "method"])
    assert costs.loc[("demo_vit", "rise"), "forwards"] == 8
    assert costs.loc[("demo_resnet", "t-tame"), "forwards"] == 1
    assert costs.loc[("demo_resnet", "t-tame"), "equivalents"] < 1.1
    assert set(costs.loc["demo_vit"].index) >= {"transformer-lrp", "random"}


def test_studies_on_validation_images_are_in_the_summary(smoke):
    curves = pd.read_csv(smoke / "summary" / "convergence.csv")
    assert set(curves["backbone"]) == {"demo_vit"}
    # those that are compared, from their start on, and RISE with as many passes
    assert set(curves["method"]) == {"t-tame", "rise"}
    steps = curves.groupby(["method", "measure", "v"])["steps"].agg(set)
    assert (steps["t-tame"] == {0, 1, 3}).all() and (steps["rise"] == {1, 3}).all()
    grid = pd.read_csv(smoke / "summary" / "grid.csv")
    assert set(zip(grid["max_lr"], grid["steps"], strict=True)) == {
        (rate, steps) for rate in (0.03, 0.1) for steps in (2, 3)
    }


def test_the_summary_says_how_many_images_the_studies_rest_on(smoke):
    studies = ["sanity", "released", "masking-orders", "seeds"]
    read = {
        name: pd.read_csv(smoke / "summary" / f"{name}.csv")
        for name in (*studies, "outcomes", "rivals-masking", "controls")
    }
    left = pd.read_csv(smoke / "summary" / "runner-up.csv")
    whose = ["no map", *3 * ["predicted class"], *3 * ["runner-up"]]
    assert left["masked by the map of"].tolist() == whose * len(BACKBONES)
    assert left["v"].tolist() == [100, *2 * [100, 50, 15]] * len(BACKBONES)
    assert set(left["images"]) == {3}
    whole = read["sanity"].set_index(["randomised", "backbone"]).loc["whole backbone"]
    assert set(whole.index) == set(BACKBONES) and set(read["sanity"]["images"]) == {3}
    assert {"as in the paper", "taps at the norms"} <= set(read["released"]["method"])
    orders = read["masking-orders"].set_index("method")["AD(50) ↓"]
    for method in ("brightness", "random", "all-ones"):
        assert orders[method] != orders[f"{method}, mismatched"]
    assert set(read["released"]["images"]) == {4}
    assert read["seeds"][["backbone", "seeds", "images"]].values.tolist() == [["demo_vit", 2, 4]]
    assert list(read["outcomes"].columns) == ["backbone", "measure", "t-tame"]
    rivals = read["rivals-masking"].set_index(["backbone", "rival"])
    assert set(rivals.loc["demo_vit"].index) == {"grad-cam", "rise", "transformer-lrp"}
    assert set(read["controls"]["rival"]) == {"brightness", "random", "all-ones"}
    assert set(rivals["IC(50) ↑"]) | set(read["controls"]["deletion ↓"]) <= set("▲○▼")


def test_the_summary_has_the_settings_it_was_made_with(smoke):
    told = json.loads((smoke / "summary" / "configuration.json").read_text())
    assert told == tb.Edition.read("smoke", root=ROOT).config


def test_the_summary_says_what_made_it(smoke):
    manifests = json.loads((smoke / "summary" / "manifests.json").read_text())
    assert len({m["run_id"] for m in manifests}) == len(manifests)
    made = {(m["notebook"], m["parameters"].get("backbone")) for m in manifests}
    assert made >= {(n, b) for n in ("03_train", "04_evaluate", "05_road") for b in BACKBONES}
    assert {("09_convergence", "demo_vit"), ("12_compare", None)} <= made


def test_pages_hide_the_plumbing(smoke):
    text = (smoke / "book" / "_build" / "html" / "demo_vit" / "04_evaluate.html").read_text()
    assert "injected" not in text.lower()
    assert "import torch" not in text
    assert "papermill notebooks/04_evaluate.ipynb" in re.sub("<[^>]+>", "", text)
    assert "demo_vit, t-tame" not in text  # progress


@pytest.fixture(scope="module")
def html(project):
    """The built book."""
    return project / "results" / "smoke" / "book" / "_build" / "html"


@pytest.fixture(scope="module")
def examined(html, browser):
    """What the browser finds on each page but the one that only leads on to the first."""
    pages = {*html.rglob("*.html")} - {*html.glob("_static/**/*"), html / "index.html"}
    parts = {html / "intro.html": "html"}  # what is around a page's own is alike on all
    return {p.as_uri(): examine(browser, p, parts.get(p, "main")) for p in sorted(pages)}


def test_no_page_has_an_error_or_asks_for_anything(examined):
    assert len(examined) > 35
    assert not {
        page: found["complaints"] for page, found in examined.items() if found["complaints"]
    }


def test_no_link_leads_nowhere(examined, html):
    assert "url=intro.html" in (html / "index.html").read_text()
    for page, found in examined.items():
        for link in found["links"]:
            address, anchor = urldefrag(link)
            if address in examined:
                assert not anchor or unquote(anchor) in examined[address]["anchors"], (page, link)
            elif address.startswith(html.as_uri()):
                assert (html / unquote(address.removeprefix(html.as_uri() + "/"))).is_file(), (
                    page,
                    link,
                )
            else:
                assert address.startswith("https://"), (page, link)


def test_mathematics_is_drawn(examined):
    assert sum(found["formulas"] for found in examined.values()) > 20
    assert all(found["drawn"] == found["formulas"] for found in examined.values())


def test_no_page_scrolls_sideways_on_a_phone_or_on_a_desk(examined):
    for page, found in examined.items():
        assert [width["there"] for width in found["widths"]] == [375, 1440]
        assert all(width["needed"] <= width["there"] for width in found["widths"]), page


def test_no_page_keeps_anyone_out_in_light_or_in_dark(examined):
    assert not {page: found["barriers"] for page, found in examined.items() if found["barriers"]}


def test_every_page_names_authors_year_and_licence(examined):
    for page, found in examined.items():
        for word in ("The T-TAME Book authors", "2026", "Apache licence 2.0"):
            assert word in found["footer"], page


def test_the_search_finds_a_word_of_a_text(browser, html):
    browser.open((html / "search.html").as_uri() + "?q=espresso", width=1440)
    found = browser.run("""
      new Promise((done) => {
        const look = () => Search.output?.querySelector("a") ? done(
          Array.from(Search.output.querySelectorAll("a"), ({ href }) => href)
        ) : requestAnimationFrame(look);
        look();
      })
    """)
    assert (html / "intro.html").as_uri() in found
    assert not browser.complaints()
