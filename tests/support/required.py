"""What a test does when a real part that it needs is not on this machine.

At home it is skipped, loudly; with CI=true it fails, so that a build never goes green on tests that did not run.
"""

import os
from typing import NoReturn

import pytest


def in_ci() -> bool:
    """Whether this run is a build whose skips count as failures."""
    return os.environ.get("CI", "").lower() in {"true", "1"}


def required(part: str, reason: str) -> NoReturn:
    """End the running test because `part` is missing: skipped at home, failed in a build."""
    sentence = f"{part} is missing: {reason}"
    if in_ci():
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)
