"""What verbs share in speaking to a terminal and to folders.

Owns the progress bar, sentences for the file system's errors, and writing whole files; never decides what is
said.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Tell = Callable[[str, float], None]


@contextmanager
def progress_bar() -> Iterator[Tell]:
    """A bar on standard error where that is a terminal; silence elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _step, _share: None
        return
    # where nobody watches, a bar's imports are not paid for
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("start", total=1.0)
        yield lambda step, share: bar.update(task, description=step, completed=share)


def sentence_of(error: Exception) -> str:
    """One sentence for what the file system said."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def write_whole(path: Path, data: bytes) -> None:
    """All or nothing: a reader never sees half a file."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)
