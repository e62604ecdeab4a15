"""What has been sent from this machine, so that an interrupted submission goes on where it stopped.

Owns one file of JSON lines that is only appended to; a line that is cut off at the end counts as not written.
"""

import json
import os
from pathlib import Path
from typing import Any

from astrid_workers.ingestion.submission import Submission


class Journal:
    """The submissions sent so far, by observation and by the state of their file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sent = {_key(line["uuid"], line["fingerprint"]) for line in _lines(path)}

    def has(self, submission: Submission) -> bool:
        """Whether this observation with this very file was sent."""
        return _key(submission.uuid, submission.fingerprint) in self._sent

    def add(self, submission: Submission, message_id: str) -> None:
        """Remember it, on the disk before this returns."""
        line = {"uuid": submission.uuid, "fingerprint": submission.fingerprint, "message_id": message_id}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            # A new line first: the last one may have been cut off.
            file.write(f"\n{json.dumps({**line, 'name': submission.name})}\n")
            file.flush()
            os.fsync(file.fileno())
        self._sent.add(_key(submission.uuid, submission.fingerprint))


def _key(uuid: str, fingerprint: str) -> tuple[str, str]:
    return uuid, fingerprint


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [line for text in path.read_text(encoding="utf-8").splitlines() if (line := _parsed(text))]


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and {"uuid", "fingerprint"} <= line.keys() else None
