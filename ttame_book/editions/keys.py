"""What is recomputed when: one key for a result, of its code, its settings and its inputs.

The code is what really runs: modules and notebooks with all modules of the project that they
import, directly or not, as their syntax tells. Docstrings and comments are no part of it.
"""

import ast
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttame_core.errors import TTAMEError

if TYPE_CHECKING:
    from ttame_book.editions.configuration import Configuration

ROOT = Path(__file__).resolve().parents[2]
"""Folder that holds the packages."""
PACKAGES = ("ttame_core", "ttame_book")


def result_key(
    code: Iterable[str | Path], settings: Any = None, inputs: Iterable[Path] = ()
) -> str:
    """Name what a result depends on.

    Parameters
    ----------
    code : iterable of str or Path
        Modules by their dotted names, perhaps with a colon and the name of what is used of them,
        and files of notebooks.
    settings : object, optional
        Anything that JSON can write, or that tells itself as a string.
    inputs : iterable of Path
        Files and folders that are read: known again by names, sizes and times.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, text in sorted(closure(code).items()):
        digest.update(f"{name}\0{text}\0".encode())
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for place in inputs:
        digest.update(_listing(place).encode())
    return digest.hexdigest()[:16]


def training_key(edition: "Configuration", backbone: str) -> str:
    """Key of what trains an explainer of a backbone: code and training images."""
    code = ["ttame_book.editions.trained", "ttame_book.editions.splits", *edition.code(backbone)]
    return result_key(code, inputs=edition.photographs(backbone, "train"))


def answers_key(edition: "Configuration", backbone: str, settings: Any = None) -> str:
    """Key of a classifier's kept answers; what was asked is known by the images themselves."""
    code = ["ttame_core.metrics.perturbations", *edition.classifier_code(backbone)]
    return result_key(code, settings)


def maps_key(edition: "Configuration", backbone: str, made_by: str, settings: Any = None) -> str:
    """Key of a method's kept maps; what was explained is known by the images themselves."""
    return result_key([made_by, *edition.classifier_code(backbone)], settings)


def closure(code: Iterable[str | Path]) -> dict[str, str]:
    """Find `result_key`'s code with all that it imports: by module or notebook, without words."""
    found: dict[str, str] = {}
    waiting = list(code)
    while waiting:
        each = waiting.pop()
        name = each.stem if isinstance(each, Path) else each.partition(":")[0]
        file = each if isinstance(each, Path) else source_of(name)
        if file is None or name in found:
            continue
        found[name], imported = _read(file, name)
        waiting += imported
    return found


def source_of(module: str) -> Path | None:
    """Find the file of a module of the project; None where there is none."""
    place = ROOT.joinpath(*module.split("."))
    files = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in files if file.is_file()), None)


@lru_cache
def _read(file: Path, name: str) -> tuple[str, tuple[str, ...]]:
    """A file's code without docstrings and comments, and the modules that it imports."""
    text = file.read_text()
    if file.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        lines = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        # commands to the shell and to IPython compute nothing
        text = re.sub(r"^([ \t]*)[%!].*$", r"\1pass", lines, flags=re.MULTILINE)
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise TTAMEError(f"{file} is no Python ({error}); correct it, nothing was run") from error
    imported = set(_imports(tree))
    # syntax cannot tell what is loaded by a name: methods.library may load all that lies beside it;
    # what a configuration names, images and classifiers, is given by who asks for a key
    if any(getattr(node, "attr", "") == "resolve_name" for node in ast.walk(tree)):
        imported |= {
            f"{name.rpartition('.')[0]}.{beside.stem}" for beside in file.parent.glob("*.py")
        }
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _tells_nothing(line)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree), tuple(sorted(imported))


def _tells_nothing(node: ast.AST) -> bool:
    """Whether a line is a text, or says a package's names: what is used of them is known."""
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) in ("MODULES", "__version__")
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _imports(tree: ast.AST) -> Iterator[str]:
    """Name the project's modules that code imports, those behind a package's lazy names too."""
    packages: dict[str, str] = {}  # by what they are called here
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            ours = [each for each in node.names if each.name.partition(".")[0] in PACKAGES]
            packages |= {each.asname or each.name: each.name for each in ours}
            yield from (each.name for each in ours)
        elif isinstance(node, ast.ImportFrom):
            if not node.level and str(node.module).partition(".")[0] not in PACKAGES:
                continue
            if node.level or any(each.name == "*" for each in node.names):
                raise TTAMEError(
                    f"{ast.unparse(node)!r} hides what is imported; name module and names"
                )
            for each in node.names:
                module = _module_of(str(node.module), each.name)
                packages[each.asname or each.name] = module
                yield module
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            package = _package(node.value, packages)
            if package:
                yield _module_of(package, node.attr)


def _package(node: ast.AST, packages: dict[str, str]) -> str | None:
    """The package that an expression is, as ``tt.metrics``; None where it is none."""
    if isinstance(node, ast.Name):
        found = packages.get(node.id)
    elif isinstance(node, ast.Attribute):
        package = _package(node.value, packages)
        found = _module_of(package, node.attr) if package else None
    else:
        return None
    file = source_of(found) if found else None
    return found if file and file.stem == "__init__" else None


def _module_of(package: str, name: str) -> str:
    """The module that ``package.name`` is, or in which it is defined."""
    if source_of(f"{package}.{name}"):
        return f"{package}.{name}"
    module = _lazy_names(package).get(name)
    return f"{package}.{module}" if module else package


@lru_cache
def _lazy_names(package: str) -> dict[str, str]:
    """What a package's ``MODULES`` says of where its names are."""
    file = source_of(package)
    for node in ast.parse(file.read_text()).body if file else ():
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODULES":
            modules = ast.literal_eval(node.value)
            return {name: module for module, names in modules.items() for name in names}
    return {}


@lru_cache
def _listing(place: Path) -> str:
    """Names, sizes and times of a file, or of all files in a folder."""
    if place.is_file():
        files = [place]
    else:
        files, seen = [], set[str]()
        for folder, inner, names in os.walk(place, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:  # a link that leads back
                inner.clear()
                continue
            seen.add(real)
            files += [Path(folder) / name for name in names]
        files = [file for file in sorted(files) if file.exists()]
    told = []
    for file in files:
        status = file.stat()
        told.append(f"{file.relative_to(place.parent)} {status.st_size} {status.st_mtime_ns}")
    return "\n".join(told)
