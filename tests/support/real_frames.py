"""Real frames: read from the folder that ASTRID_TEST_DATA names, never copied."""

import os
from pathlib import Path

from support.required import required


def real_frame(relative: str) -> Path:
    """The path of one real file; ends the test when the folder is not there."""
    folder = os.environ.get("ASTRID_TEST_DATA")
    path = Path(folder or ".", relative)
    if not folder or not path.is_file():
        required("real frames", f"set ASTRID_TEST_DATA to the folder that holds {relative}")
    return path
