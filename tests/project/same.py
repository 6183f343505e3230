"""Whether two folders of results are the same, and whether every file in one is whole.

python -m tests.project.same results/smoke other/smoke
"""

import json
import sys
from fnmatch import fnmatch
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import load_file

MAY_DIFFER = {
    "*.ipynb": "executed notebooks: times, progress",
    "*[0-9][0-9]_*.json": "manifests: run, times, memory",
    "*manifests.json": "manifests",
    "*costs.*": "what each method takes",
    "*runs.*": "what each run took",
    "logs/*": "times, progress",
    "book/provenance.md": "manifests",
    "book/_build/*": "the book made of all these",
}
"""What two runs of one edition on one machine may differ in; in Parquet files the run's name too."""


def differences(first, second):
    """Names of files that are in one folder only, or not the same in both."""
    folders = [Path(first), Path(second)]
    found = [{f.relative_to(place).as_posix() for f in files(place)} for place in folders]
    apart = found[0] ^ found[1]
    for name in found[0] & found[1]:
        one, other = (place / name for place in folders)
        if one.read_bytes() != other.read_bytes() and not may_differ(name):
            if one.suffix == ".parquet":
                tables = [pd.read_parquet(file).drop(columns="run_id") for file in (one, other)]
                if tables[0].equals(tables[1]):
                    continue
            apart.add(name)
    return sorted(apart - {name for name in apart if fnmatch(name, "book/_build/*")})


def may_differ(name):
    return any(fnmatch(name, pattern) for pattern in MAY_DIFFER)


def files(place):
    """Files of a folder, those of the built book and temporaries left out."""
    return [
        file
        for file in Path(place).rglob("*")
        if file.is_file() and "_build" not in file.parts and not is_temporary(file)
    ]


def is_temporary(file):
    """Whether a file is one that is being written."""
    return any(part.startswith(".part-") for part in file.parts) or ".part." in file.name


def temporaries(place):
    return [file for file in Path(place).rglob("*") if is_temporary(file)]


READERS = {
    ".npy": np.load,
    ".safetensors": load_file,
    ".checkpoint": lambda file: torch.load(file, weights_only=True)["history"],
    ".parquet": pd.read_parquet,
    ".csv": pd.read_csv,
    ".json": lambda file: json.loads(file.read_text()),
    ".ipynb": lambda file: nbformat.read(file, 4),
    ".svg": ElementTree.parse,
    ".png": lambda file: Image.open(file).load(),
    ".pdf": lambda file: file.read_bytes().rstrip().index(b"%%EOF", -5),
}


def broken(place):
    """Files of a folder that cannot be read, with why."""
    found = {}
    for file in files(place):
        try:
            READERS.get(file.suffix, Path.read_bytes)(file)
        except Exception as error:  # damaged bytes raise what they come to
            found[file.relative_to(place).as_posix()] = repr(error)
    return found


if __name__ == "__main__":
    apart = differences(*sys.argv[1:3])
    print("\n".join(apart) or "the same")
    sys.exit(bool(apart))
