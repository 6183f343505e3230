"""The structure of a checkout in numbers: lines, modules, imports between them and between rooms.

python benchmarks/structure.py [FOLDER]

A room is a package's folder. Depth is the longest chain of modules that import each other. Below it:
how many of the project's modules, and which large libraries, some names of the package load.
"""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pandas as pd


def modules(root: Path) -> dict[str, Path]:
    """The project's modules by their dotted names."""
    files = [
        file for package in ("ttame_core", "ttame_book") for file in (root / package).rglob("*.py")
    ]
    named = {".".join(file.relative_to(root).with_suffix("").parts): file for file in files}
    return {name.removesuffix(".__init__"): file for name, file in named.items()}


def imports(file: Path, known: dict[str, Path]) -> set[str]:
    """The project's modules that a file imports, functions included."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{each.name}" for each in node.names}
            found |= (inner & known.keys()) or {node.module}
    return found & known.keys()


def structure(root: Path) -> pd.DataFrame:
    """Count for each package, and for both."""
    known = modules(root)
    arrows = {name: imports(file, known) - {name} for name, file in known.items()}
    lines = {name: len(file.read_text().splitlines()) for name, file in known.items()}
    room = {name: file.parent.relative_to(root).as_posix() for name, file in known.items()}

    @cache
    def floors(name: str) -> int:
        return 1 + max((floors(below) for below in arrows[name]), default=0)

    rows = {}
    for package in ("ttame_core", "ttame_book", ""):
        own = [name for name in known if name.startswith(package)]
        pairs = [(name, below) for name in own for below in arrows[name]]
        rows[package or "both"] = {
            "lines": sum(lines[name] for name in own),
            "modules": len(own),
            "longest": max((lines[name] for name in own), default=0),
            "rooms": len({room[name] for name in own}),
            "imports between modules": len(pairs),
            "between rooms": len({(room[a], room[b]) for a, b in pairs if room[a] != room[b]}),
            "depth": max((floors(name) for name in own), default=0),
        }
    return pd.DataFrame(rows).T


NAMES = ("Backbone", "load_backbone", "TTAME", "train", "evaluate", "method")
LIBRARIES = (
    "torch",
    "torchvision",
    "timm",
    "pandas",
    "sklearn",
    "IPython",
    "captum",
    "pytorch_grad_cam",
    "jsonschema",
)
TOLD = f"""import sys, ttame_core
getattr(ttame_core, sys.argv[1])
print(sum(name.startswith(("ttame_core", "ttame_book")) for name in sys.modules))
print(*(name for name in {LIBRARIES} if name in sys.modules))"""


def loaded(root: Path) -> pd.DataFrame:
    """What the use of a name loads, each in a process of its own."""
    rows = {}
    for name in NAMES:
        command = [sys.executable, "-c", TOLD, name]
        told = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
        rows[f"ttame_core.{name}"] = dict(
            zip(("modules", "libraries"), told.splitlines(), strict=True)
        )
    return pd.DataFrame(rows).T


if __name__ == "__main__":
    place = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    print(structure(place).to_string(), loaded(place).to_string(), sep="\n\n")
