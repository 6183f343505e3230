"""Runs of notebooks: strict parameters, folders, manifests."""

import json
import os
import secrets
import shlex
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from papermill.models import Parameter
from papermill.translators import PythonTranslator

from ttame_book.editions.configuration import SETTINGS, project_root
from ttame_book.editions.edition import Edition, read_result
from ttame_book.editions.manifest import TOLD, commit, machine, read_manifest
from ttame_core.errors import TTAMEError, nearest
from ttame_core.files import atomic_path

SHELL_NAMES = {"In", "Out"}  # what IPython itself leaves in a notebook's namespace
COUNTS_AS = {"float": ("int",)}  # types of values that will do for another
MAKES_BACKBONES = "02_backbones"


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
    lock : FileLock, optional
        What keeps another run of the notebook from writing there.
    """

    notebook: str
    parameters: dict[str, Any]
    edition: Edition
    folder: Path
    lock: FileLock | None = field(default=None, repr=False)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    outputs: list[str] = field(default_factory=list)
    drawn: str = field(default_factory=partial(secrets.token_hex, 4))  # two may start at once

    @property
    def run_id(self) -> str:
        """Name of this run, the same in its manifest and its scores."""
        of_what = self.parameters.get("backbone") or self.edition.name
        return f"{self.notebook}-{of_what}-{self.started:%Y%m%dT%H%M%SZ}-{self.drawn}"

    def save_table(self, table: pd.DataFrame, name: str) -> None:
        """Write a table as Parquet or CSV, by the suffix of its name."""
        with atomic_path(self.folder / name) as path:
            if path.suffix == ".parquet":
                table.to_parquet(path, index=False)
            else:
                table.to_csv(path, index=False)
        self.outputs.append(name)

    def save_scores(self, scores: pd.DataFrame, name: str) -> pd.DataFrame:
        """Write per-image scores with what they are of, and return them as written."""
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

    def save_texts(self, texts: dict[str, str], name: str) -> None:
        """Write one thing in several forms: texts by the suffixes of their files."""
        for suffix, text in texts.items():
            with atomic_path((self.folder / name).with_suffix(suffix)) as path:
                path.write_text(text)
            self.outputs.append(f"{name}{suffix}")

    def save_figure(self, figure: Figure, name: str, data: pd.DataFrame | None = None) -> None:
        """Write a figure by the suffix of its name, and what it shows as a table beside it.

        A picture is written as PNG, what has lines and text (``.svg``) as SVG and as PDF; ``data``
        as CSV.
        """
        stem, suffix = os.path.splitext(name)
        names = [name, f"{stem}.pdf"] if suffix == ".svg" else [name]
        box = settle(figure)
        for each in names:
            with atomic_path(self.folder / each) as path:
                undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
                figure.savefig(path, metadata=undated.get(path.suffix), bbox_inches=box)
        self.outputs += names
        if data is not None:
            self.save_table(data, f"{stem}.csv")

    def save_manifests(self, name: str) -> pd.DataFrame:
        """Write the manifests of all notebooks that ran for the edition's backbones as one file.

        Returns a row a run: backbone, run (the name of its manifest), device, threads, minutes,
        peak memory in GB, commit, precision.
        """
        files = sorted(self.edition.results.glob("[!.]*/[0-9][0-9]_*.json"))
        manifests = [read_result(file, read_manifest) for file in files]
        with atomic_path(self.folder / name) as path:
            path.write_text(json.dumps([*manifests, self.manifest()], indent=1) + "\n")
        self.outputs.append(name)
        runs = pd.DataFrame(manifests, columns=[*TOLD])
        runs["seconds"] = [f"{seconds / 60:.1f}" for seconds in runs["seconds"]]
        runs.insert(0, "backbone", [file.parent.name for file in files])
        runs.insert(1, "run", [file.stem for file in files])
        runs["precision"] = [
            ", ".join(sorted({*m.get("precision", {}).values()})) for m in manifests
        ]
        return runs.rename(columns={"seconds": "minutes", "peak_memory_gb": "GB"})

    def finish(self) -> None:
        """Write the manifest, say what was written, drop the checkpoints of what was trained."""
        with atomic_path(self.folder / f"{self.notebook}.json") as path:
            path.write_text(json.dumps(self.manifest(), indent=1) + "\n")
        for checkpoint in chain(*map(self.folder.glob, ("*.checkpoint", "studies/*/*.checkpoint"))):
            with suppress(FileNotFoundError):  # no explainer yet, or another run was faster
                age = checkpoint.with_suffix(".safetensors").stat().st_mtime_ns
                # one that is younger is of a training that another run is at, with other settings
                if age >= checkpoint.stat().st_mtime_ns:
                    checkpoint.unlink()
        if self.lock:
            self.lock.release(force=True)
        relative = os.path.relpath(self.folder, self.edition.root)
        print(f"written to {relative}: {', '.join([*self.outputs, f'{self.notebook}.json'])}")

    def manifest(self) -> dict[str, Any]:
        """Say which command, commit, parameters, versions, seed and device made the outputs."""
        return {
            "run_id": self.run_id,
            "notebook": self.notebook,
            "edition": self.edition.name,
            "parameters": self.parameters,
            "command": self.command(),
            "commit": commit(self.edition.root),
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - self.started).total_seconds(), 1),
            "seed": self.edition.seed,
            "outputs": self.outputs,
            "precision": self.edition.precisions,
            **machine(),
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


def parameters_of(notebook: Path) -> dict[str, Parameter]:
    """Read the parameters of a notebook out of its cell with that tag, with types and meanings.

    A cell has a line each, ``steps: int = None  # optimiser steps``; None always means: the
    edition's.
    """
    cells = json.loads(notebook.read_text())["cells"]
    tagged = next(c for c in cells if "parameters" in c["metadata"].get("tags", []))
    return {p.name: p for p in PythonTranslator.inspect({"source": "".join(tagged["source"])})}


def settle(figure: Figure, margin: float = 0.1) -> Bbox:
    """Lay a figure out for all files of it; return what to save, in inches."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
    figure.set_layout_engine("none")
    return figure.get_tightbbox().padded(margin)


def start_run(notebook: str, namespace: dict[str, Any]) -> Run:
    """Check a notebook's parameters, seed torch, open its folder.

    Call it right after the parameters and the imports. In a kernel where the notebook has run
    before, names it does not know are its own variables and pass.

    Parameters
    ----------
    notebook : str
        Name without suffix.
    namespace : dict
        The notebook's ``globals()``; ``_ttame_started`` is set there. papermill only warns of a
        parameter that a notebook does not know; here it is an error.

    Raises
    ------
    TTAMEError
        For an unknown or ill-typed parameter, edition or backbone, with the nearest valid names.
    """
    parameters, edition = check_parameters(notebook, namespace)
    torch.manual_seed(edition.seed)
    folder = edition.results
    if "backbone" in parameters:
        folder = edition.folder(parameters["backbone"])
    elif notebook == MAKES_BACKBONES:
        folder = edition.results / "backbones"
    lock = edition.hold(f"{os.path.relpath(folder, edition.results)}/{notebook}")
    folder.mkdir(parents=True, exist_ok=True)
    namespace["_ttame_started"] = True
    return Run(notebook, parameters, edition, folder, lock)


def check_parameters(notebook: str, namespace: dict[str, Any]) -> tuple[dict[str, Any], Edition]:
    """Check a notebook's parameters as `start_run` does, and run or write nothing.

    Returns
    -------
    tuple of dict and Edition
        The parameters that were given, and the edition that they name and overrule.
    """
    known = parameters_of(project_root() / "notebooks" / f"{notebook}.ipynb")
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
        wanted = known[name].inferred_type_name
        if value is not None and type(value).__name__ not in (wanted, *COUNTS_AS.get(wanted, ())):
            hint = f"; papermill takes one by -y '{name}: [...]'" if wanted == "list" else ""
            raise TTAMEError(
                f"parameter {name} ({known[name].help}) is {value!r}; expected {wanted}{hint}"
            )
    parameters: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    if missing := ({"edition", "backbone"} & known.keys()) - parameters.keys():
        raise TTAMEError(f"{notebook} has no {' and no '.join(sorted(missing))}; give a name by -p")
    settings = {k: v for k, v in parameters.items() if k in SETTINGS}
    edition = Edition.read(parameters["edition"], settings, results=parameters.get("results"))
    if "backbone" in parameters:
        edition.entry(parameters["backbone"])
    return parameters, edition
