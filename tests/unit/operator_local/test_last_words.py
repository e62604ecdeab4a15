"""What a member said before it ended is told in one line."""

import pytest

from astrid_operator.member_process import last_words

TRACEBACK = """Traceback (most recent call last):
  File "app.py", line 1, in <module>
    import nothing
ModuleNotFoundError: No module named 'nothing'
"""

ROWS = [
    ("nothing was said", "", ""),
    ("the last line is the reason", "booting\nerror: unknown queue\n\n", "error: unknown queue"),
    ("an error counts for more than what follows it", f"booting\n{TRACEBACK}shutting down\n", "ModuleNotFoundError: No module named 'nothing'"),
    ("of two errors the last one counts", TRACEBACK + TRACEBACK.replace("nothing", "else"), "ModuleNotFoundError: No module named 'else'"),
    ("a traceback that is cut off has no error", "before\nTraceback (most recent call last):\n  File", "File"),
    ("a long line is shortened", "x" * 999, "x" * 200),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_the_reason_is_found_in_the_log(text: str, words: str) -> None:
    """Each row is a sentence about what a person should read first."""
    assert last_words(text) == words
