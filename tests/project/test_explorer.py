"""The explorer in a browser: what is chosen changes what is drawn, and nothing is asked of anyone."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from tests.browser import WIDTH
from tests.commands import ROOT
from ttame_book.report import explorer
from ttame_book.studies.exploration import SHARES, _data_uri, _levels
from ttame_core.images.explanation import colours_of
from ttame_core.masking import enlarged, keep_top, mask_images

pytestmark = pytest.mark.slow
MINUS = "\N{MINUS SIGN}"
MEAN = torch.tensor([0.5, 0.25, 0.75])[:, None, None]
SIZE, SIDE, METHODS = (10, 14), (3, 4), ("t-tame", "rise")  # height, width
LEFT = {"t-tame": 0.6, "rise": 0.3}  # confidence left at 100 %; at each next share 0.01 less
PROBE = """
(async () => {
  const told = [], drawn = document.getElementById("comparison").dataset;
  const wait = async () => {
    while (!drawn.drawn) await new Promise((done) => setTimeout(done, 10));
  };
  const pixels = (place) => {
    const copy = Object.assign(document.createElement("canvas"), { width: place.width, height: place.height });
    const context = copy.getContext("2d", { willReadFrequently: true });  // without, the browser warns
    context.drawImage(place, 0, 0);
    return Array.from(context.getImageData(0, 0, place.width, place.height).data);
  };
  const crossed = () => {
    const boxes = (kind) => Array.from(document.querySelectorAll(kind), (part) => part.getBBox());
    const lines = boxes("svg :is(.grid, .zero)");
    const meet = (text) => (line) =>
      text.x < line.x && line.x < text.x + text.width && text.y < line.y + line.height && line.y < text.y + text.height;
    return boxes("svg text").filter((text) => lines.some(meet(text))).length;
  };
  const look = () => told.push({
    finding: document.querySelector(".finding").textContent,
    title: document.querySelector("svg title").textContent,
    filled: document.querySelectorAll("circle.proven").length,
    table: Array.from(document.querySelectorAll(".numbers tr"), (row) => Array.from(row.cells, (cell) => cell.textContent)),
    confidences: document.querySelector(".confidences").textContent,
    canvases: Array.from(document.querySelectorAll(".pictures:not([hidden]) canvas"), pixels),
    unnamed: document.querySelectorAll("canvas:not([aria-label])").length,
    crossed: crossed(),
    hash: location.hash,
    width: WIDTH,
    labelled: Array.from(document.querySelectorAll("select, input"), ({ labels }) => labels.length),
  });
  await wait();
  look();
  for (const [name, value] of STEPS) {
    const control = document.querySelector(`[name="${name}"]`);
    control.focus();
    control.value = value;
    delete drawn.drawn;
    control.dispatchEvent(new Event("input", { bubbles: true }));
    await wait();
    look();
  }
  return told;
})()
"""


@pytest.fixture(scope="module")
def made():
    """An image, a map of each method and class, and the explored data of two classifiers."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, *SIZE), generator=generator) / 255
    levels = torch.randperm(256, generator=generator)[:48].reshape(2, 2, *SIDE).byte()
    found = {
        method: [
            {
                "map": _data_uri(levels[i, c], "png"),
                "left": [round(LEFT[method] - 0.01 * k, 2) for k in range(len(SHARES))],
            }
            for c in range(2)
        ]
        for i, method in enumerate(METHODS)
    }
    classes = [{"name": "cat <b>", "before": 0.9}, {"name": "dog", "before": 0.05}]
    images = [
        {
            "name": "one",
            "picture": _data_uri(_levels(image), "png"),
            "classes": classes,
            "methods": found,
        }
    ]
    about = {"mean": MEAN.flatten().tolist(), "note": "Drawn by hand.", "images": images}
    both = {
        "cnn": {**about, "masking": "image"},
        "vit": {**about, "masking": "standardised"},
    }
    return SimpleNamespace(
        image=image, levels=levels, explored={"shares": SHARES, "classifiers": both}
    )


@pytest.fixture(scope="module")
def page(made, tmp_path_factory):
    """The page with these, and with differences on one classifier in one measure."""
    place = tmp_path_factory.mktemp("explorer")
    summary = place / "results" / "summary"
    summary.mkdir(parents=True)
    rows = [
        ("cnn", "ad", v, "t-tame", *row)
        for v in (50, 15)
        for row in (
            ("rise", 40, v - 20.0, -6.0, 31.0, 0.2),
            ("grad-cam", 500, -12.5, -14.0, -11.0, 0.0001),
            ("t-tame-top", 500, 2.0, 1.0, 3.0, 0.01),
            ("random", 500, -30.0, -31.0, -29.0, 0.0001),
        )
    ]
    columns = ["backbone", "measure", "v", "method", "rival", "n", "difference", "low", "high", "p"]
    pd.DataFrame(rows, columns=columns).to_csv(summary / "differences.csv", index=False)
    (summary / "explorer.json").write_text(json.dumps(made.explored))
    book = place / "book"
    shutil.copytree(ROOT / "book" / "_static", book / "_static")
    shutil.copy(ROOT / "book" / "explorer.md", book)
    assert explorer.write_page(place / "results", place / "none", book)
    body = re.search("```{raw} html\n(.*?)```", (book / "explorer.md").read_text(), re.DOTALL)[1]
    file = book / "explorer.html"
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Explorer</title>'
    file.write_text(f"{head}<body>{body}")
    return file


STEPS = (
    ("reference", "Grad-CAM"),
    ("reference", "T-TAME"),
    ("v", "15"),
    ("keep", "33"),
    ("class", "1"),
    ("shown", "vit"),
    ("second", "none"),
)


def opened(browser, page, hash_, width, steps=()):
    """Open the page with what its address says; return what is seen, and what went wrong."""
    browser.open(page.as_uri() + hash_, width)
    probe = PROBE.replace("WIDTH", WIDTH).replace("STEPS", json.dumps(steps))
    return browser.run(probe), browser.complaints()


@pytest.fixture(scope="module")
def seen(browser, page):
    """What is seen at first and after each of `STEPS`, on a narrow screen."""
    return opened(browser, page, "", 375, STEPS)


def test_a_browser_finds_no_error_and_asks_for_nothing(seen):
    told, complaints = seen
    assert not complaints
    for view in told:
        assert view["width"]["needed"] <= view["width"]["there"] == 375  # nothing scrolls sideways
        assert view["labelled"] == [1] * 10 and not view["unnamed"]
        assert view["crossed"] == 0  # no line goes through a word


def test_the_reference_turns_the_differences_round(seen):
    first, of_grad_cam, _, at_15, *_ = seen[0]
    assert first["finding"] == first["title"]
    assert (
        "T-TAME on cnn, AD(50): better than 1 of 2 rivals, level with 1 and worse than 0."
        in first["finding"]
    )
    assert "n = 40 to 500 images" in first["finding"] and first["filled"] == 3
    assert first["table"] == [
        [
            "Grad-CAM",
            "T-TAME is better",
            f"{MINUS}12.5",
            f"{MINUS}14.0 to {MINUS}11.0",
            "500",
            "< 0.001",
        ],
        ["RISE", "level", "+30.0", f"{MINUS}6.0 to +31.0", "40", "0.20"],
        # no rival, and not among the two that are counted
        ["T-TAME, top masks", "T-TAME is worse", "+2.0", "+1.0 to +3.0", "500", "0.010"],
        [
            "Random map",
            "T-TAME is better",
            f"{MINUS}30.0",
            f"{MINUS}31.0 to {MINUS}29.0",
            "500",
            "< 0.001",
        ],  # a control
    ]
    assert of_grad_cam["table"] == [
        ["T-TAME", "Grad-CAM is worse", "+12.5", "+11.0 to +14.0", "500", "< 0.001"]
    ]
    assert "better than 0 of 1 rivals, level with 0 and worse than 1" in of_grad_cam["finding"]
    assert at_15["table"][1][2] == f"{MINUS}5.0" and "AD(15)" in at_15["finding"]


def test_the_browser_masks_as_the_measures_do(seen, made):
    first, *_, at_33, other_class, vit, alone = seen[0]

    def standardise(images):  # what is shown of a CNN's input is the masked image itself
        return images - MEAN if order == "standardised" else images

    for view, v, c, order in (
        (first, 15, 0, "image"),
        (at_33, 33, 0, "image"),
        (other_class, 33, 1, "image"),
        (vit, 33, 1, "standardised"),
    ):
        for i in range(2):
            maps = enlarged(made.levels[i, c][None] / 255, SIZE)
            masked = mask_images(made.image[None], keep_top(maps, v), standardise, order)
            expected = [made.image, torch.from_numpy(colours_of(maps[0].numpy())).permute(2, 0, 1)]
            for canvas, picture in zip(
                view["canvases"][3 * i :],
                [*expected, masked[0] + MEAN * (order == "standardised")],
                strict=False,
            ):
                shown = np.array(canvas).reshape(*SIZE, 4)[..., :3]
                wanted = 255 * picture.permute(1, 2, 0).numpy()
                assert np.abs(shown - wanted).max() <= 1
    assert len(alone["canvases"]) == 3


def test_the_confidence_told_is_that_of_the_nearest_share(seen):
    first, *_, at_33, other_class, _, alone = seen[0]
    assert first["confidences"] == (
        "Confidence in “cat <b>”. T-TAME: 90.0 % before, 51.0 % after; RISE: 90.0 % before, "
        "21.0 % after masking (at v = 15 %)."
    )
    assert "53.0 % after" in at_33["confidences"]
    assert "(at v = 30 %, the nearest to 33 % that was computed)" in at_33["confidences"]
    assert "Confidence in “dog”. T-TAME: 5.0 % before" in other_class["confidences"]
    assert "RISE" not in alone["confidences"]


def test_a_view_is_linked_by_its_address(browser, page, seen):
    last = seen[0][-1]
    again, complaints = opened(browser, page, last["hash"], 1440)
    for key in ("finding", "table", "confidences", "canvases"):
        assert again[0][key] == last[key]
    assert last["finding"] != seen[0][0]["finding"] and not complaints
    assert again[0]["width"]["needed"] <= again[0]["width"]["there"] == 1440


HELD = (
    "(({ name, value, length }) => [name ?? '', value ?? '', length ?? 2])(document.activeElement)"
)


def test_every_control_is_reached_by_tab_and_changed_by_an_arrow(browser, page):
    opened(browser, page, "", 1440)
    named = browser.run(
        "Array.from(document.querySelectorAll('select, input'), ({ name }) => name)"
    )
    met, drawn, changed = [], set(), 0
    for _ in range(5 * len(named)):
        browser.press("Tab")
        name, value, choices = browser.run(HELD)
        if name not in named or len(met) == len(named):  # the rest: a table, the head of a fold
            continue
        met.append(name)
        browser.press("ArrowDown")
        if browser.run(HELD)[1] == value:  # the last of a list
            browser.press("ArrowUp")
        still, now, _ = browser.run(HELD)
        assert still == name and (now != value or choices == 1)
        changed += now != value
        # the address tells what is drawn, which is drawn a little later
        later = "new Promise((done) => setTimeout(() => done(location.href), 50))"
        drawn.add(browser.run(later))
    assert met == named and len(drawn) >= changed > len(named) / 2
