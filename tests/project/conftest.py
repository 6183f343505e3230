"""A browser for the tests of a file that open pages."""

import pytest

from tests.browser import CHROMIUM, Browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """It is started once."""
    if not CHROMIUM:
        pytest.skip("no chromium is found to open pages in")
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()
