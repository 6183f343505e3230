"""The box "Reproduce this page": its command, its notebooks, and what it shows as files."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

SOURCES = "sources"  # folder of the book with the notebooks before they ran
KINDS = (".csv", ".md", ".tex", ".svg", ".pdf")  # files to download; pictures are on the page
HEAD = "{admonition} Reproduce this page\n:class: dropdown tip\n"
ENTER = "make setup\n. .venv/bin/activate\n"
"""What a command needs that stands for itself."""
Repository = Mapping[str, str]
"""Where the project is published, ``url`` and ``branch``; no url: nowhere."""


def notebook_box(
    manifest: Mapping[str, Any], files: Sequence[str], page: str, repository: Repository
) -> str:
    """Write the box of an executed notebook.

    Parameters
    ----------
    manifest : mapping
        The run's, as `Run.manifest` makes it.
    files : sequence of str
        What it wrote, as copied into the book; from the book's folder on.
    page : str
        The notebook's page, likewise, without suffix.
    repository : mapping
        See `Repository`.
    """
    name, given = manifest["notebook"], manifest["parameters"]
    command = ENTER + manifest["command"]
    rows = "\n".join(f"| `{k}` | {code(v)} |" for k, v in given.items())
    up = "../" * page.count("/")
    ran = f'<a href="{up}_sources/{page}.ipynb" download>as it ran</a>'
    return box(
        command,
        f"{code(of_all(manifest))} makes it with all others. Commit `{manifest['commit']}`, "
        f"{manifest['seconds']:.0f} s on {runs_on(manifest)}.\n\n"
        f"The notebook, {ran}; before it ran: {openers([name], repository)}.\n"
        f"{first_cell(repository)}\n"
        f"| parameter | value |\n|---|---|\n{rows}\n\n"
        f"All other settings are those of `config/{manifest['edition']}.yaml`.\n{downloads(files)}",
    )


def of_all(manifest: Mapping[str, Any]) -> str:
    """Return the command that makes all of a run's edition."""
    command = f"make book EDITION={shlex.quote(manifest['edition'])}"
    if "data_root" in manifest["parameters"]:
        command += f" DATA={shlex.quote(manifest['parameters']['data_root'])}"
    return command


def box(command: str, text: str) -> str:
    """Write a box: a command, and a text below it."""
    ticks, colons = fence("`", command), fence(":", command)
    return f"{colons}{HEAD}{ticks}bash\n{command}\n{ticks}\n{text}{colons}"


def add_box(
    page: Path,
    command: str,
    text: str,
    data: Iterable[str],
    notebooks: Sequence[str],
    at: Repository,
) -> None:
    """Put the box at the end of a page that is no notebook.

    Offered are ``data``, files from the book's folder on, where they are there, and whatever the
    page shows out of the book's folders of figures and tables.
    """
    book, words = page.parent, page.read_text()
    stems = re.findall(r"\b(?:figures|\w+-summary)/[\w.-]+(?=\.(?:svg|md)\b)", words)
    shown = [f"{stem}{kind}" for stem in dict.fromkeys(stems) for kind in KINDS]
    files = [name for name in dict.fromkeys((*data, *shown)) if (book / name).is_file()]
    if notebooks:
        text += f" Notebooks: {openers(notebooks, at)}."
    made = box(command, f"{text}\n{downloads(files)}")
    page.write_text(f"{words.rstrip()}\n\n{made}\n")


def downloads(files: Sequence[str]) -> str:
    """Offer files to download, by their names."""
    links = (f"{{download}}`{Path(file).name} </{file}>`" for file in files)
    return f"\nData and figures: {', '.join(links)}\n" if files else ""


def openers(notebooks: Sequence[str], repository: Repository) -> str:
    """Say how notebooks are had: as files, in JupyterLab and, from a repository, elsewhere."""
    told = []
    for name in notebooks:
        ways = [f"`make lab N={name[:2]}`"]
        url = repository["url"].rstrip("/")
        if url:
            owned = url.partition("github.com/")[2]
            file = f"{repository['branch']}/notebooks/{name}.ipynb"
            ways += [
                f"[source]({url}/blob/{file})",
                f"[Binder](https://mybinder.org/v2/gh/{owned}/{repository['branch']}"
                f"?labpath=notebooks/{name}.ipynb)",
                f"[Colab](https://colab.research.google.com/github/{owned}/blob/{file})",
            ]
        told.append(f"{{download}}`{name} </{SOURCES}/{name}.ipynb>` ({', '.join(ways)})")
    return ", ".join(told)


def install_line(repository: Repository) -> str:
    """Return the cell with which a downloaded notebook gets what it needs, anywhere."""
    fetch = "# %cd to your copy of the project first"
    if repository["url"]:
        fetch = f"!git clone --quiet {shlex.quote(repository['url'])} ttame\n    %cd ttame"
    return (
        "# installs what this notebook needs, where it is not there yet\n"
        "from importlib.util import find_spec\n\n"
        'if not find_spec("ttame_book"):\n'
        f"    {fetch}\n"
        '    %pip install --quiet -e ".[book]"'
    )


def first_cell(repository: Repository) -> str:
    """Say what the notebook needs where nothing is installed, if it can be opened there."""
    if not repository["url"]:
        return ""
    return f"\nIn Colab its first cell is to be:\n\n```python\n{install_line(repository)}\n```\n"


def runs_on(manifest: Mapping[str, Any]) -> str:
    """Name a run's device and, where it loaded a classifier, in what precision that ran."""
    found = sorted(set(manifest.get("precision", {}).values()))  # older manifests have none
    return ", ".join([manifest["device"], *found])


def fence(mark: str, text: str, least: int = 3) -> str:
    """Return a row of marks that is longer than any in a text: nothing in it ends what it holds."""
    return mark * max(least, *(len(found) + 1 for found in re.findall(f"{mark}+", text)), least)


def code(value: Any) -> str:
    """Write a value as code in a cell of a table: no mark, tag or end of line in it counts."""
    text = " ".join(str(value).split()).replace("|", "\\|")
    ticks = fence("`", text, 1)
    return f"{ticks} {text} {ticks}" if "`" in text else f"`{text}`"
