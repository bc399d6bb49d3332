"""What tests of the search share."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """No search remembers what another module measured, or writes into the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRECISION_EXPLORER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
