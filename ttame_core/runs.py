"""Runs of notebooks: strict parameters, folders, manifests."""

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from ttame_core.configuration import TRAINING
from ttame_core.editions import Edition
from ttame_core.errors import TTAMEError, nearest
from ttame_core.files import atomic_path
from ttame_core.tables import latex, markdown

PARAMETERS: dict[str, tuple[tuple[type, ...], str]] = {
    "edition": ((str,), "name of a file in config/"),
    "backbone": ((str,), "classifier to explain"),
    "results": ((str,), "folder for outputs, relative to the project"),
    "data_root": ((str,), "folder of images in place of the edition's"),
    "seed": ((int,), "of weights, order and draws"),
    "variant": ((str,), "row of Table VI"),
    "steps": ((int,), "optimiser steps"),
    "batch_size": ((int,), "images a step"),
    "max_lr": ((float, int), "peak learning rate"),
    "other_classes": ((str,), "uniform or in-batch"),
    "methods": ((list,), "methods compared"),
    "images": ((int,), "number of test images"),
    "shown": ((int,), "number of test images in the figures"),
    "photo": ((str,), "file of a photograph"),
    "explainer": ((str,), "a ready-made explainer, or a file"),
    "classes": ((list,), "classes to explain, in words"),
    "classifier": ((str,), "any of torchvision's and timm's by name"),
    "weights": ((str,), "published weights, or a file"),
    "photos": ((str,), "folder of photographs"),
}
"""Every parameter of every notebook: types and meaning. None always means: the edition's."""

COMMON = ("edition", "results", "seed")
NOTEBOOKS: dict[str, tuple[str, ...]] = {
    "00_backbones": COMMON,
    "01_train": (*COMMON, "backbone", "data_root", *TRAINING),
    "02_evaluate": (*COMMON, "backbone", "data_root", "methods", "images"),
    "03_road": (*COMMON, "backbone", "data_root", "methods", "images"),
    "04_ablations": (*COMMON, "backbone", "data_root"),
    "05_hyperparameters": (*COMMON, "backbone", "data_root"),
    "06_qualitative": (*COMMON, "backbone", "data_root", "methods", "shown"),
    "07_sanity": (*COMMON, "backbone", "data_root"),
    "08_counterfactual": (*COMMON, "backbone", "data_root", "shown"),
    "09_compare": (*COMMON, "data_root"),
    "12_convergence": (*COMMON, "backbone", "data_root"),
    "10_explain": ("edition", "results", "photo", "explainer", "weights", "classes"),
    "11_own_model": (*COMMON, "classifier", "weights", "photos"),
}
PACKAGES = (
    "ttame_core",
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "grad-cam",
    "numpy",
    "pandas",
)
OWN = ("photo", "explainer", "classes", "classifier", "weights", "photos")
NO_SETTINGS = ("edition", "backbone", "results", "shown", *OWN)  # change no number of an edition
SHELL_NAMES = {"In", "Out"}  # what IPython itself leaves in a notebook's namespace


@dataclass
class Run:
    """One run of a notebook: its edition, its folder, what it wrote.

    Attributes
    ----------
    notebook : str
        Name without suffix.
    parameters : dict
        Those that were given, None left out.
    edition : Edition
        Configuration with the parameters applied.
    folder : Path
        Where its outputs go.
    """

    notebook: str
    parameters: dict[str, Any]
    edition: Edition
    folder: Path
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    outputs: list[str] = field(default_factory=list)

    @property
    def run_id(self) -> str:
        """Name of this run, the same in its manifest and its scores."""
        return f"{self.notebook}-{self.started:%Y%m%dT%H%M%SZ}"

    @property
    def kept(self) -> Path:
        """Folder for what a killed run goes on from; it is removed when the notebook has finished."""
        return self.folder / "kept" / self.notebook

    def save_table(self, table: pd.DataFrame, name: str) -> None:
        """Write a table as Parquet or CSV, by the suffix of its name."""
        with atomic_path(self.folder / name) as path:
            if path.suffix == ".parquet":
                table.to_parquet(path, index=False)
            else:
                table.to_csv(path, index=False)
        self.outputs.append(name)

    def save_scores(self, scores: pd.DataFrame, name: str) -> pd.DataFrame:
        """Write per-image scores with what they are of: edition, backbone, variant, seed and this run.

        Returns
        -------
        DataFrame
            As written.
        """
        backbone = self.parameters["backbone"]
        scores = scores.assign(
            edition=self.edition.name,
            backbone=backbone,
            variant=self.edition.variant(backbone),
            seed=self.edition.seed,
            run_id=self.run_id,
        )
        self.save_table(scores, name)
        return scores

    def save_display(self, table: pd.DataFrame | Styler, name: str) -> Styler:
        """Write a table as it is to be read: CSV, Markdown, and LaTeX with booktabs and the marks of the best.

        Returns
        -------
        Styler
            For the page.
        """
        styled = table if isinstance(table, Styler) else table.style
        texts = {
            ".csv": styled.data.fillna("").to_csv(),  # type: ignore[attr-defined]
            ".md": markdown(styled),
            ".tex": latex(styled),
        }
        for suffix, text in texts.items():
            with atomic_path((self.folder / name).with_suffix(suffix)) as path:
                path.write_text(text)
            self.outputs.append(f"{name}{suffix}")
        return styled

    def save_figure(self, figure: Figure, name: str) -> None:
        """Write a figure as PNG or, with a PDF beside it, as SVG, by the suffix of its name."""
        names = [name, name.replace(".svg", ".pdf")] if name.endswith(".svg") else [name]
        for each in names:
            with atomic_path(self.folder / each) as path:
                undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
                figure.savefig(path, metadata=undated.get(path.suffix))
        self.outputs += names

    def save_manifests(self, name: str) -> pd.DataFrame:
        """Write the manifests of all notebooks that ran for this edition as one file.

        Returns
        -------
        DataFrame
            A row a run: backbone, run (the name of its manifest), device, threads, minutes, peak memory in GB, commit.
        """
        files = sorted(self.edition.results.glob("*/[0-9][0-9]_*.json"))
        manifests = [json.loads(file.read_text()) for file in files]
        with atomic_path(self.folder / name) as path:
            path.write_text(json.dumps([*manifests, self.manifest()], indent=1) + "\n")
        self.outputs.append(name)
        runs = pd.DataFrame(
            manifests, columns=["device", "threads", "seconds", "peak_memory_gb", "commit"]
        )
        runs["seconds"] = [f"{seconds / 60:.1f}" for seconds in runs["seconds"]]
        runs.insert(0, "backbone", [file.parent.name for file in files])
        runs.insert(1, "run", [file.stem for file in files])
        return runs.rename(columns={"seconds": "minutes", "peak_memory_gb": "GB"})

    def finish(self) -> None:
        """Write the manifest and say what was written; what a killed run goes on from is of no more use then."""
        with atomic_path(self.folder / f"{self.notebook}.json") as path:
            path.write_text(json.dumps(self.manifest(), indent=1) + "\n")
        for checkpoint in self.folder.rglob("*.checkpoint"):
            if checkpoint.with_suffix(".safetensors").is_file():
                checkpoint.unlink()
        shutil.rmtree(self.kept, ignore_errors=True)
        relative = os.path.relpath(self.folder, self.edition.root)
        print(f"written to {relative}: {', '.join([*self.outputs, f'{self.notebook}.json'])}")

    def manifest(self) -> dict[str, Any]:
        """Say which command, commit, parameters, versions, seed and device made the outputs."""
        device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        return {
            "run_id": self.run_id,
            "notebook": self.notebook,
            "edition": self.edition.name,
            "parameters": self.parameters,
            "command": self.command(),
            "commit": commit(self.edition.root),
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - self.started).total_seconds(), 1),
            "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
            "seed": self.edition.seed,
            "threads": torch.get_num_threads(),
            "versions": {"python": platform.python_version()} | versions(),
            "outputs": self.outputs,
            "peak_memory_gb": peak_memory(),
        }

    def command(self) -> str:
        """Return the papermill line that repeats this run."""
        given = " ".join(
            f"-y {shlex.quote(f'{k}: {json.dumps(v)}')}"
            if isinstance(v, list)
            else f"-p {k} {shlex.quote(str(v))}"
            for k, v in self.parameters.items()
        )
        return f"papermill notebooks/{self.notebook}.ipynb {self.notebook}-out.ipynb {given}"


def start_run(notebook: str, namespace: dict[str, Any]) -> Run:
    """Check a notebook's parameters, seed torch, open its folder.

    Call it right after the parameters and the imports. In a kernel where the notebook has run before, names
    it does not know are its own variables and pass.

    Parameters
    ----------
    notebook : str
        Name without suffix, a key of `NOTEBOOKS`.
    namespace : dict
        The notebook's ``globals()``; ``_ttame_started`` is set there. papermill only warns of a parameter
        that a notebook does not know; here it is an error.

    Returns
    -------
    Run

    Raises
    ------
    TTAMEError
        For an unknown or ill-typed parameter, edition or backbone, with the nearest valid names.
    """
    known = NOTEBOOKS[notebook]
    literals = (str, int, float, list, dict, tuple, type(None))
    given = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_") and name not in SHELL_NAMES and isinstance(value, literals)
    }
    if "_ttame_started" in namespace:
        given = {name: given[name] for name in known if name in given}
    for name, value in given.items():
        if name not in known:
            raise TTAMEError(f"{notebook} has no parameter {name!r}; {nearest(name, known)}")
        types, meaning = PARAMETERS[name]
        if value is not None and (not isinstance(value, types) or isinstance(value, bool)):
            wanted = " or ".join(t.__name__ for t in types)
            raise TTAMEError(f"parameter {name} ({meaning}) is {value!r}; expected {wanted}")
    parameters: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    settings = {k: v for k, v in parameters.items() if k not in NO_SETTINGS}
    edition = Edition.read(parameters["edition"], settings, results=parameters.get("results"))
    torch.manual_seed(edition.seed)
    folder = edition.folder(parameters["backbone"]) if "backbone" in known else edition.results
    if notebook == "00_backbones":
        folder = edition.results / "backbones"
    folder.mkdir(parents=True, exist_ok=True)
    namespace["_ttame_started"] = True
    return Run(notebook, parameters, edition, folder)


def peak_memory() -> float | None:
    """Return the most memory this process has held, in GB; None on Windows, which does not tell."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1e9 if sys.platform == "darwin" else 1e6  # bytes there, kilobytes elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 2)


def commit(root: Path) -> str:
    """Name the project's commit, with ``+`` where files other than results differ from it; "unknown" without git."""
    try:
        ask = ["git", "-C", str(root)]
        found = subprocess.run(
            [*ask, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*ask, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!results"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found + ("+" if changed.strip() else "")


def versions() -> dict[str, str]:
    """Return the versions of the packages that numbers depend on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found
