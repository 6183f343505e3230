"""The graph on a cluster: what each job asks for, and that submitted jobs do what those here do."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.commands import ROOT
from tests.project.test_graph import Project
from tests.project.test_snakefile import OTHERS
from ttame_book.editions.configuration import Configuration
from ttame_book.editions.graph import STEPS

PROFILES = ROOT / "profiles"
ASKED = yaml.safe_load((PROFILES / "cluster" / "config.yaml").read_text())
PLUGINS = {"slurm": "slurm", "kubernetes": "cluster_generic"}
COMMAND = re.findall(r"^snakemake (.*)$", (ROOT / "book" / "beyond.md").read_text(), re.MULTILINE)
COMMANDS = ("sbatch", "squeue", "scancel", "kubectl")


class Cluster(Project):
    """A project whose notebooks are run by the stub, on a cluster that is none."""

    def __init__(self, place):
        super().__init__(place)
        (place / "profiles").symlink_to(PROFILES)
        for command in COMMANDS:
            file = place / "bin" / command
            file.write_text(
                f'#!/bin/sh\nexec {sys.executable} -m tests.project.cluster {command} "$@"\n'
            )
            file.chmod(0o755)
        for plugin in PLUGINS.values():
            file = place / "plugins" / f"snakemake_executor_plugin_{plugin}" / "__init__.py"
            file.parent.mkdir(parents=True)
            file.write_text("from tests.project.cluster import *\n")

    def run_with(self, *words):
        path = f"{self.place / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["snakemake", "--seconds-between-status-checks", "1", *words],
            cwd=self.place,
            env={**os.environ, "PATH": path, "PYTHONPATH": f"{self.place / 'plugins'}:{ROOT}"},
            capture_output=True,
            text=True,
            timeout=200,
        )
        return done.returncode, done.stdout + done.stderr

    def submit(self, profile, *words):
        profiles = ("--profile", "profiles/cluster", "--profile", f"profiles/{profile}")
        return self.run_with(*profiles, *words, "--config", "edition=smoke")

    def asked(self):
        """What was asked of the cluster, job by job, in their order."""
        files = sorted(
            (self.place / "cluster").glob("*.json"), key=lambda file: file.stat().st_mtime_ns
        )
        return [json.loads(file.read_text()) for file in files]


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


def test_each_rule_says_what_its_job_needs():
    rules = {step.rule for step in STEPS} | {*OTHERS.values(), "book"}
    assert ASKED["set-resources"].keys() == ASKED["set-threads"].keys() == rules
    for rule, needs in ASKED["set-resources"].items():
        assert needs.keys() == {"gpu", "mem_mb", "runtime"}
        assert needs["gpu"] == (rule in {step.rule for step in STEPS})
        assert needs["runtime"] <= 24 * 60  # what most partitions allow


@pytest.mark.slow
@pytest.mark.parametrize("profile", PLUGINS)
def test_the_imagenet_edition_is_planned_with_what_each_job_needs(profile, cluster):
    for part in ("train", "val"):
        file = cluster.place / "data" / "imagenet" / part / "n01440764" / f"{part}.png"
        file.parent.mkdir(parents=True)
        file.write_bytes((ROOT / "book" / "_static" / "cat.png").read_bytes())
    (words,) = (shlex.split(line) for line in COMMAND if f"profiles/{profile}" in line)
    words = [re.sub("data_root=.*", "data_root=data/imagenet", word) for word in words]
    code, told = cluster.run_with(*words, "--dry-run")
    assert code == 0, told
    edition = Configuration.read("imagenet")
    expected = {"compare": 1, "book": 1, "all": 1}
    expected |= {step.rule: len(getattr(edition, step.among)) for step in STEPS}
    counts = dict(re.findall(r"^(\w+) +(\d+)$", told, re.MULTILINE))
    assert {rule: int(count) for rule, count in counts.items() if rule != "total"} == {
        rule: count for rule, count in expected.items() if count
    }
    assert expected["train"] == 3 and not expected["convergence"]
    jobs = re.findall(r"^rule (\w+):\n((?: .*\n)+)", told, re.MULTILINE)
    assert len(jobs) == int(counts["total"])
    for rule, about in jobs:
        if rule == "all":
            continue
        resources = dict(re.findall(r"(\w+)=(\w+)", about.partition("resources:")[2]))
        wanted = ASKED["set-resources"][rule]
        assert {name: int(resources[name]) for name in wanted} == wanted
        threads = re.search(r"threads: (\d+)", about)
        assert int(threads[1] if threads else 1) == ASKED["set-threads"][rule]
        assert resources.get("slurm_partition") == ("gpu" if profile == "slurm" else None)


@pytest.mark.slow
def test_slurm_is_asked_for_what_a_job_needs_and_it_writes_what_it_does_here(cluster):
    target = "results/smoke/demo_vit/03_train.ipynb"
    code, told = cluster.submit("slurm", target)
    assert code == 0, told
    assert cluster.ran() == ["03_train"]
    files = {"03_train.ipynb", *STEPS[0].outputs}
    assert cluster.contents() == {f"demo_vit/{file}": "03_train 0" for file in files}
    needs, threads = ASKED["set-resources"]["train"], ASKED["set-threads"]["train"]
    words = {"time": needs["runtime"], "mem": needs["mem_mb"], "gpus": needs["gpu"]}
    words |= {"cpus-per-task": threads, "partition": "gpu"}
    assert cluster.asked() == [{name: str(value) for name, value in words.items()}]


@pytest.mark.slow
@pytest.mark.happens(
    "Killed or stopped",
    "a job on a cluster that fails",
    "is told; what others wrote stays",
)
def test_kubernetes_is_asked_for_what_each_job_needs_and_says_which_failed(cluster):
    cluster.behave(0, n04_evaluate="fails")
    target = "results/smoke/demo_vit/04_evaluate.ipynb"
    code, told = cluster.submit("kubernetes", target, "--retries", "0")
    assert code == 1 and "Error in rule evaluate" in told and "Error in rule train" not in told
    assert cluster.ran() == ["03_train", "04_evaluate"]
    assert cluster.contents()["demo_vit/explainer.safetensors"] == "03_train 0"
    for rule, asked in zip(("train", "evaluate"), cluster.asked(), strict=True):
        needs = ASKED["set-resources"][rule]
        pod = asked["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert asked["metadata"]["generateName"] == f"ttame-{rule}-"
        assert pod["activeDeadlineSeconds"] == 60 * needs["runtime"]
        of_pod = {"memory": f"{needs['mem_mb']}M", "nvidia.com/gpu": needs["gpu"]}
        requests = {"cpu": ASKED["set-threads"][rule], **of_pod}
        assert container["resources"] == {"limits": of_pod, "requests": requests}
        assert container["workingDir"] == str(cluster.place)
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounted == {"project": "/ttame", "shared-memory": "/dev/shm"}
