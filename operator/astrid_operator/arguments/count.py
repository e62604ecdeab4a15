"""Arguments that count something."""

import argparse
from collections.abc import Callable


def count_of(what: str = "") -> Callable[[str], int]:
    """What reads a number of 1 or more, and says of anything else that it is no number of `what`."""
    of = f" of {what}" if what else ""

    def count(text: str) -> int:
        if not text.isdecimal() or not int(text):
            raise argparse.ArgumentTypeError(f"{text!r} is no number{of}, must be 1 or more")
        return int(text)

    return count
