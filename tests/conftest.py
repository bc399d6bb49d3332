"""What tests of several rooms share."""

import pytest
from support.chromium import chromium


@pytest.fixture(scope="module")
def browser():
    yield from chromium()
