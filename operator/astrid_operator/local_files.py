"""AstridQueues in files that a person may edit at any time, as the loop wants them.

Owns when an edit is taken up and what is kept while a file makes no sense. Level-triggered: it compares what
is there with what was taken up, so no edit is missed and none counts twice. Judges no field of a spec (the
loop does, and keeps the last good one).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from astrid_operator.arguments.filename import STDIN
from astrid_operator.astrid_queue import KIND, QueueKey, key_of
from astrid_operator.errors import InvalidSpec
from astrid_operator.manifest_files import FileRejected, files_of, read_manifests

log = structlog.get_logger(__name__)

Manifest = Mapping[str, Any]
#: What tells one version of the files from another: name, size, time and inode of each.
_Fingerprint = tuple[tuple[str, int, int, int], ...]

#: Seconds for which the files must have stayed as they are before an edit is taken up: editors write in
#: steps.
SETTLE_SECONDS = 0.4


class LocalFiles:
    """The AstridQueues of `sources`; call it as often as you like for what holds now.

    The same object is returned until something changes, and a manifest that changes gets the next
    `generation`. The first reading raises FileRejected; afterwards files that cannot be used are said once,
    and the last version of all that could be stays in force.
    """

    def __init__(self, sources: Sequence[str | Path], clock: Callable[[], float]) -> None:
        self._sources = tuple(sources)
        self._clock = clock
        self._seen = self._fingerprint()
        self._seen_at = clock()
        self._taken_up = self._seen
        #: Why the files as they are now are not in force; empty: they are.
        self.trouble = ""
        self._manifests: dict[QueueKey, Manifest] = {}
        self._manifests = self._read()

    def __call__(self) -> Mapping[QueueKey, Manifest]:
        """Every AstridQueue that holds now."""
        now, seen = self._clock(), self._fingerprint()
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        if self._seen != self._taken_up and now - self._seen_at >= SETTLE_SECONDS:
            self._taken_up = self._seen
            self._take_up()
        return self._manifests

    def _take_up(self) -> None:
        try:
            self._manifests = self._read()
        except FileRejected as error:
            self.trouble = str(error)
            log.warning("Files not taken up, the last good ones stay in force", error=self.trouble)
            return
        if self.trouble:
            log.info("Files taken up again")
        self.trouble = ""

    def _read(self) -> dict[QueueKey, Manifest]:
        found: dict[QueueKey, Manifest] = {}
        files: dict[QueueKey, str] = {}
        for file, manifest in read_manifests(self._sources):
            key = _key(file, manifest)
            if key in found:
                raise FileRejected(file, f"{KIND} {key} stands in {files[key]} already")
            found[key], files[key] = self._numbered(key, manifest), file
        if not found:
            raise FileRejected(", ".join(map(str, self._sources)), f"holds no {KIND}")
        return found

    def _numbered(self, key: QueueKey, manifest: dict[str, Any]) -> Manifest:
        """`manifest` as a server would hold it: with its namespace and the number of its version."""
        before = self._manifests.get(key)
        generation = before["metadata"]["generation"] if before is not None else 0
        metadata = {**manifest["metadata"], "namespace": key.namespace}
        same = {**manifest, "metadata": {**metadata, "generation": generation}}
        if before == same:
            return before
        return {**manifest, "metadata": {**metadata, "generation": generation + 1}}

    def _fingerprint(self) -> _Fingerprint:
        names = [name for source in self._sources if str(source) != STDIN for name in files_of(source)]
        return tuple(_stat(name) for name in names)


def _stat(name: str) -> tuple[str, int, int, int]:
    try:
        stat = Path(name).stat()
    except OSError:
        return name, -1, -1, -1
    return name, stat.st_size, stat.st_mtime_ns, stat.st_ino


def _key(file: str, manifest: Manifest) -> QueueKey:
    try:
        return key_of(manifest)
    except InvalidSpec as error:
        raise FileRejected(file, f"{KIND} {error}") from error
