"""Reading a file of this machine that a message names.

Owns that only ordinary files under the allowed folders are read, also through links, and the cap on size.
Never decides what the bytes are.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from astrid_workers.errors import ServiceUnavailable, SourceRefused


def read_file(path: str, *, roots: Sequence[Path], max_bytes: int) -> bytes:
    """All bytes of the file at `path`, an absolute path that lies under one of the resolved `roots`.

    Links are followed first and the outcome is checked. Raises SourceRefused for a path that is outside,
    missing, too large or not an ordinary file; ServiceUnavailable where reading fails.
    """
    resolved = _resolved(path, roots)
    try:
        # Not blocking, so that a pipe in the place of a file is seen instead of waited for.
        descriptor = os.open(resolved, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise _refused(path, "there is no such file") from error
    except OSError as error:
        raise _refused(path, error.strerror or "it cannot be opened") from error
    try:
        _check_opened(path, descriptor, max_bytes)
    except SourceRefused:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as file:
        try:
            data = file.read(max_bytes + 1)
        except OSError as error:
            msg = f"{path} cannot be read: {error.strerror}"
            raise ServiceUnavailable(msg, service="files") from error
    if len(data) > max_bytes:
        raise _too_large(path, max_bytes)
    return data


def _resolved(path: str, roots: Sequence[Path]) -> Path:
    if "\0" in path or not path.startswith("/"):
        raise _refused(path, "expected an absolute path")
    try:
        resolved = Path(path).resolve()
    except (OSError, RuntimeError) as error:
        raise _refused(path, "its links cannot be followed") from error
    if not any(resolved.is_relative_to(root) for root in roots):
        listed = ", ".join(map(str, roots)) or "none"
        # The same for what exists and what does not: a refusal tells nothing about the disk.
        raise _refused(path, f"it is outside the folders that may be read (ASTRID_INPUT_ROOTS: {listed})")
    return resolved


def _check_opened(path: str, descriptor: int, max_bytes: int) -> None:
    opened = os.fstat(descriptor)
    if not stat.S_ISREG(opened.st_mode):
        raise _refused(path, "it is not an ordinary file")
    if opened.st_size > max_bytes:
        raise _too_large(path, max_bytes)


def _too_large(path: str, max_bytes: int) -> SourceRefused:
    return _refused(path, f"it has more than {max_bytes} bytes", max_bytes=max_bytes)


def _refused(path: str, why: str, **numbers: int) -> SourceRefused:
    return SourceRefused(f"{path!r} is refused: {why}", **numbers)
