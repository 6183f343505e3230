"""Leave out of the built book what no page needs.

Jupyter Book always loads sphinx-thebe: it would run cells on a server elsewhere, which this book
never asks for, and declares its constants twice, an error in each page's console. It also has every
page load all of ``_static``: the explorer's page loads its script itself, and on others it fails.
Of MathJax one bundle is loaded, and a dozen are copied, and what it would read aloud in ten
languages.
"""

import re
from pathlib import Path
from typing import Any


def without_scripts(app: Any, page: str, template: str, context: dict, doctree: Any) -> None:
    """Leave out what would run cells, and the explorer's script and looks, which its page names."""
    for kind in ("script_files", "css_files"):
        files = context.get(kind, [])
        context[kind] = [f for f in files if not re.search("thebe|explorer", str(f).lower())]


def without_the_rest(app: Any, error: Exception | None) -> None:
    """Remove MathJax's other bundles and languages, and the maps from scripts to their sources."""
    static = Path(app.outdir) / "_static"
    loaded = Path(app.config.mathjax_path or "").name or "tex-chtml.js"
    for bundle in (static / "mathjax").glob("*.js"):
        if bundle.name != loaded:
            bundle.unlink()
    spoken = static / "mathjax" / "sre" / "mathmaps"
    for words in spoken.glob("*.json"):
        if words.stem not in ("base", "en", "nemeth"):
            words.unlink()
    for source in static.rglob("*.map"):
        source.unlink()


def setup(app: Any) -> dict[str, bool]:
    """Do so once all others have added theirs."""
    app.connect("html-page-context", without_scripts, priority=999)
    app.connect("build-finished", without_the_rest, priority=999)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
