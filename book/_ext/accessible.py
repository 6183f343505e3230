"""Make pages fit for narrow screens, for the keyboard, for the dark, and to be read aloud.

Each picture gets a box in which it scrolls where the screen is narrower than its letters allow. The
box's class is that of the theme's boxes around tables: the theme lets the keyboard reach those that
scroll, and no others. Tables that pandas has styled look like its others, which the theme knows. An
entry of the bibliography becomes what a list may hold.
"""

import re
from typing import Any

BOX = r'<span class="pst-scrollable-table-container picture">\g<0></span>'


def mend(app: Any, page: str, template: str, context: dict, doctree: Any) -> None:
    """Change what is said above in a page."""
    if "body" in context:
        body = re.sub("<img [^>]*>", BOX, context["body"])
        body = re.sub('<table id="T_[^"]*"(?=>)', r'\g<0> class="dataframe"', body)
        context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app: Any) -> dict[str, bool]:
    """Do so with each page."""
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
