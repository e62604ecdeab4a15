"""The middleware, carried into a foreign image, works with the Dramatiq that is there or says that it cannot."""

import pytest

from astrid_workers.middleware.dramatiq_version import check


@pytest.mark.parametrize("version", ["2.2.0", "2.2.1", "2.10.0", "2.3.0rc1"])
def test_a_dramatiq_with_the_same_insides_will_do(version: str) -> None:
    """From the first that keeps its messages as the middleware takes them."""
    check(version)


@pytest.mark.parametrize("version", ["1.18.0", "2.0.1", "2.1.0", "3.0.0"])
def test_another_dramatiq_is_refused(version: str) -> None:
    """Messages that a worker gave back would be lost until it ends."""
    with pytest.raises(RuntimeError, match=f"needs Dramatiq 2.2 or later, before 3; this is {version}"):
        check(version)
