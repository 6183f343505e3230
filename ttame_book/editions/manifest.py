"""What made a result: commit, versions, machine."""

import json
import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES: tuple[str, ...] = ("ttame_core", "torch", "torchvision", "timm")
PACKAGES += ("lightning-fabric", "grad-cam", "numpy", "pandas")

REPRODUCES = {
    "here": "versions, threads and machine as here: the same bytes, but for times, costs and run_id",
    "threads": "two threads in place of one: AD of an image up to 0.27 points apart (mean 0.002), "
    "deletion up to 0.93 (mean 0.003); smoke edition, demo_vit, two cores, by make twice",
    "devices": "a GPU runs classifiers in bfloat16 where it has it, a CPU in float32: AD of an image "
    "may differ by points (not measured); precision: float32 in the configuration has both in one",
}
"""What a run again gives, and how far apart it was where a machine's sums take another order."""
TOLD: dict[str, type | tuple] = {
    "device": str,
    "threads": int,
    "seconds": (int, float),
    "peak_memory_gb": (int, float, type(None)),
    "commit": str,
}
"""What a table of runs shows of each manifest, and of which types it is."""


def read_manifest(file: Path) -> dict[str, Any]:
    """Read a manifest; a ValueError says what in it is none."""
    found = json.loads(file.read_text())
    for name, kinds in TOLD.items():
        if not isinstance(found, dict) or not isinstance(found.get(name, ()), kinds):
            raise ValueError(f"no {name} of a run in it")
    return found


def machine() -> dict[str, Any]:
    """Tell device, threads, versions, the memory needed, and what is the same elsewhere."""
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | versions(),
        "peak_memory_gb": peak_memory(),
        # of the machine, by all that runs on it; Windows does not tell
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "reproduces": REPRODUCES,
    }


def peak_memory() -> float | None:
    """Return the most memory this process has held, in GB; None on Windows, which does not tell."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1e9 if sys.platform == "darwin" else 1e6  # bytes there, kilobytes elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 2)


def commit(root: Path) -> str:
    """Name the project's commit, with ``+`` where files other than results differ; or "unknown"."""
    code = [".", ":(exclude,glob)**/results/**"]
    try:
        ask = ["git", "-C", str(root)]
        found = subprocess.run(
            [*ask, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*ask, "status", "--porcelain", "--untracked-files=no", "--", *code],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found + ("+" if changed.strip() else "")


def versions() -> dict[str, str]:
    """Return the versions of the packages that numbers depend on."""
    found = dict.fromkeys(PACKAGES, "not installed as a package")
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
