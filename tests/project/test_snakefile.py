"""The graph as Snakemake plans it: which rule runs which notebook, for which backbones, after what."""

import re
import shutil
from collections import defaultdict

import pytest
import yaml

from tests.commands import ROOT, call
from ttame_book.editions.graph import STEPS

OTHERS = {
    "02_backbones": "backbones",
    "12_compare": "compare",
    "00_explain": "own",
    "01_own_model": "own",
}
"""Notebooks that run once an edition, and their rules."""
BACKBONES = {"demo_resnet", "demo_vit"}
STUDIED = {"demo_vit"}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """The plan of a smoke edition that has everything: a dict a job, of its rule, files and command."""
    place = project_in(tmp_path_factory.mktemp("plan"))
    file = place / "config" / "smoke.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "own": True}))
    return planned(place, "edition=smoke", "retrain=true")


def project_in(place):
    """A project in a folder, with configurations of its own."""
    shutil.copytree(ROOT / "config", place / "config")
    for name in ("Snakefile", "notebooks", "book"):
        (place / name).symlink_to(ROOT / name)
    return place


def planned(place, *given):
    """The jobs that Snakemake plans: a dict a job, of its rule, files and command."""
    plan = ("--dry-run", "--printshellcmds", "--cores", "1")
    done = call("snakemake", *plan, "--config", *given, cwd=place)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = []
    for block in re.split(r"\n(?=(?:local)?rule \w+:)", done.stdout + done.stderr)[1:]:
        fields = dict(re.findall(r"^ +(input|output|priority): (.*)$", block, re.MULTILINE))
        command = re.search(r"^Shell command: (.*)$", block, re.MULTILINE)
        files = {name: fields.get(name, "").split(", ") for name in ("input", "output")}
        found.append(
            {
                "rule": block.split()[1].rstrip(":"),
                "input": {file for file in files["input"] if file},
                "output": {file.removesuffix(" (update)") for file in files["output"]},
                "kept": {
                    file.removesuffix(" (update)")
                    for file in files["output"]
                    if file.endswith(" (update)")
                },
                "command": command[1] if command else "",
                "priority": int(fields.get("priority", 0)),
            }
        )
    return found


def runs_of(jobs):
    """Notebook, rule and backbone of each job that runs papermill."""
    for job in jobs:
        run = re.search(
            r"papermill .* notebooks/(\w+)\.ipynb (\S+)\.part\.ipynb (.*?) +2>", job["command"]
        )
        if run:
            backbone = re.search(r"-r backbone (\S+)", run[3])
            yield run[1], job["rule"], backbone and backbone[1], job, run[2]


def test_every_notebook_is_run_by_exactly_one_rule(jobs):
    rules = defaultdict(set)
    for notebook, rule, *_ in runs_of(jobs):
        rules[notebook].add(rule)
    expected = {step.notebook: {step.rule} for step in STEPS}
    expected |= {notebook: {rule} for notebook, rule in OTHERS.items()}
    assert rules == expected
    assert rules.keys() == {file.stem for file in (ROOT / "notebooks").glob("*.ipynb")}


def test_every_step_runs_once_for_each_of_its_backbones_and_into_its_folder(jobs):
    ran = defaultdict(list)
    for notebook, _, backbone, job, target in runs_of(jobs):
        ran[notebook].append(backbone)
        folder = f"results/smoke/{backbone}" if backbone else "results/smoke"
        folder += "/backbones" if notebook == "02_backbones" else ""
        assert target == f"{folder}/{notebook}.ipynb"
        assert {target} <= job["output"] and f"mv {target}.part.ipynb {target}" in job["command"]
        assert "-r edition smoke -r results results" in job["command"]
    for step in STEPS:
        own = BACKBONES if step.among in ("backbones", "trained", "scored") else STUDIED
        assert sorted(ran[step.notebook]) == sorted(own)
    assert all(ran[notebook] == [None] for notebook in OTHERS)


def test_a_job_waits_for_what_its_notebook_reads_and_writes_what_its_step_says(jobs):
    steps = {step.rule: step for step in STEPS}
    for notebook, rule, backbone, job, _ in runs_of(jobs):
        assert f"notebooks/{notebook}.ipynb" in job["input"]
        if rule in steps:
            folder = f"results/smoke/{backbone}"
            assert job["input"] == {
                f"notebooks/{notebook}.ipynb",
                f"results/smoke/backbones/{backbone}.safetensors",  # trained anew, as asked for
                *(f"{folder}/{file}" for file in steps[rule].needs),
            }
            files = {f"{notebook}.ipynb", *steps[rule].outputs}
            assert job["output"] == {f"{folder}/{file}" for file in files}
            # they stay until new ones are whole; by the notebook it is known whether they are
            assert job["kept"] == job["output"] - {f"{folder}/{notebook}.ipynb"}
    made = {rule: set() for rule in steps}
    for job in jobs:
        if job["rule"] in steps:
            made[job["rule"]] |= job["output"]
    (overview,) = (job for job in jobs if job["rule"] == "compare")
    assert overview["input"] == set.union(*made.values()) | {"notebooks/12_compare.ipynb"}
    (book,) = (job for job in jobs if job["rule"] == "book")
    written = {target for *_, target in runs_of(jobs)}
    assert written <= book["input"] and set.union(*made.values()) <= book["input"]
    assert {f"book/{file.name}" for file in (ROOT / "book").glob("*.md")} <= book["input"]


def test_what_most_others_wait_for_comes_first(jobs):
    waiting = {step.rule: sum(bool({*step.outputs} & {*s.needs}) for s in STEPS) for step in STEPS}
    of = {job["rule"]: job["priority"] for job in jobs}
    ranked = sorted(waiting, key=of.get, reverse=True)
    assert [waiting[rule] for rule in ranked] == sorted(waiting.values(), reverse=True)
    assert ranked[:2] == ["train", "evaluate"] and of["evaluate"] > of["road"]
    assert min(of["ablations"], of["qualitative"]) > max(of["sanity"], of["counterfactual"])
    assert of["own"] < min(of[rule] for rule in waiting)  # beside the overview


@pytest.mark.slow
@pytest.mark.parametrize("edition", ["released", "rehearsal"])
def test_the_papers_classifiers_are_planned_with_released_explainers_or_random(edition, tmp_path):
    place, names = project_in(tmp_path), ["vgg16", "resnet50", "vit_b_16"]
    files = [f"lists/{part}_2000.txt" for part in ("Validation", "Evaluation")]
    files += [f"released/{name}_TTAME.ckpt" for name in names[:2]]
    for file in ("imagenet/val/a.png", *files) if edition == "released" else ():
        (place / "data" / file).parent.mkdir(parents=True, exist_ok=True)
        (place / "data" / file).touch()
    ran = defaultdict(list)
    for notebook, _, backbone, job, _ in runs_of(planned(place, f"edition={edition}")):
        ran[notebook].append(backbone)
        assert edition == "rehearsal" or not any("explainer" in file for file in job["input"])
    expected = {step.notebook: sorted(names) for step in STEPS if step.among != "converged"}
    if edition == "released":  # two of three files are there, and nothing is trained
        left = [step.notebook for step in STEPS if step.among in ("backbones", "scored")]
        expected = dict.fromkeys(left, tuple(sorted(names[:2])))
        assert left == sorted({*left} - {"03_train", "07_ablations", "08_hyperparameters"})
    assert {k: sorted(v) for k, v in ran.items()} == {
        **{k: list(v) for k, v in expected.items()},
        "12_compare": [None],
    }


@pytest.mark.slow
def test_every_rule_says_what_it_does():
    done = call("snakemake", "--list", "--config", "edition=smoke")
    assert done.returncode == 0, done.stderr[-3000:]
    told = dict(re.findall(r"^(\w+) \((.*)\)$", done.stdout, re.MULTILINE))
    assert told.keys() == {"all", "book", *OTHERS.values(), *(step.rule for step in STEPS)}
    assert {step.rule: step.does for step in STEPS}.items() <= told.items()
