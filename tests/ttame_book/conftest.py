"""The smoke edition, for studies and runs."""

import pytest

from tests.ttame_book import smoke


@pytest.fixture
def edition(tmp_path):
    return smoke.read(tmp_path)
