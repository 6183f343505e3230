"""Make pages fit for narrow screens, for the keyboard, for the dark, and to be read aloud.

Each picture gets a box in which it scrolls where the screen is narrower than its letters allow. The
box's class is that of the theme's boxes around tables: the theme lets the keyboard reach those that
scroll, and no others. On a small screen a figure is its twin in ``_static/narrow``, where it has
one. Tables that pandas has styled look like its others, which the theme knows, and have one row for
a head. An entry of the bibliography becomes what a list may hold. No line breaks within T-TAME, nor
between a number and what belongs to it: the words themselves stay as they are, to be found by a
search.
"""

import re
from pathlib import Path
from typing import Any

KEPT = {"T-TAME": '<span class="whole">T-TAME</span>', " ": "\N{NO-BREAK SPACE}"}
# code and what is drawn by a script, other tags, and then words between them
WORDS = re.compile(
    r"<(pre|code|script|style)\b.*?</\1>|<[^>]*>|T-TAME"
    r"|(?<=\S) (?=[%±↓↑])|(?<=[\d±]) (?=better|level|worse|ms\b|pp\b)|(?<=\b[np]) (?==|&[lg]t;)"
    r"|(?<=\b[np] =) (?=\d)|(?<=&[lg]t;) (?=\d)|(?<=±) (?=\d)",
    re.DOTALL,
)
TH = r'(?:<th class="{}[^<]*</th>\s*)+'  # which a table of pandas has over its rows' labels, twice
HEAD = re.compile(
    rf"{TH.format('blank')}(?=<th id)((?:(?!</tr>).)*)</tr>\s*<tr>\s*({TH.format('index_name')})"
    rf"{TH.format('blank col')}",
    re.DOTALL,
)
LONG = re.compile("<td(?=[^>]*>[^<]{40})")  # a cell with a sentence, which is to wrap
BOX = r'<span class="pst-scrollable-table-container picture">\g<0></span>'
TWIN = r'<source media="(max-width: 40rem)" srcset="\1_static/narrow/\2">'


def mend(app: Any, page: str, template: str, context: dict, doctree: Any) -> None:
    """Change what is said above in a page."""
    if "body" in context:
        body = re.sub("<img [^>]*>", BOX, context["body"])
        twins = {file.name for file in Path(app.srcdir, "_static", "narrow").glob("*")}

        def with_twin(image: re.Match) -> str:
            source = image.expand(TWIN) if image[2] in twins else ""
            return f"<picture>{source}{image[0]}</picture>" if source else image[0]

        body = re.sub(r'<img [^>]*src="([^"]*)_images/([^"/]+)"[^>]*>', with_twin, body)
        body = re.sub('<table id="T_[^"]*"(?=>)', r'\g<0> class="dataframe"', body)
        body = LONG.sub("<td data-long", HEAD.sub(r"\2\1", body))
        body = WORDS.sub(lambda found: KEPT.get(found[0], found[0]), body)
        context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')
    footer = context.get("theme_extra_footer", "")
    context["theme_extra_footer"] = footer.replace("CITE", context["pathto"]("cite"))


def setup(app: Any) -> dict[str, bool]:
    """Do so with each page."""
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
