"""Leave out of the built book what no page needs.

Jupyter Book always loads sphinx-thebe: it would run cells on a server elsewhere, which this book
never asks for, and declares its constants twice, an error in each page's console. Of MathJax one
bundle is loaded, and a dozen are copied, and what it would read aloud in ten languages.
"""

from pathlib import Path
from typing import Any


def without_thebe(app: Any, page: str, template: str, context: dict, doctree: Any) -> None:
    """Leave out the scripts that the extension has added to a page."""
    scripts = context.get("script_files", [])
    context["script_files"] = [s for s in scripts if "thebe" not in str(s).lower()]


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
    app.connect("html-page-context", without_thebe, priority=999)
    app.connect("build-finished", without_the_rest, priority=999)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
