"""AstridQueues in YAML files: what `render` and `local` are given with `-f`.

Owns finding the files, and the sentence that says which file and object is wrong. Judges no field itself
(`parse_astrid_queue` does).
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from astrid_operator.arguments.filename import STDIN
from astrid_operator.astrid_queue import KIND, AstridQueue, QueueKey, parse_astrid_queue
from astrid_operator.errors import InvalidSpec, PersonMustAct

Json = Any


class FileRejected(PersonMustAct):
    """A file that cannot be used: the sentence names file, object, field, value and what was expected."""

    reason = "InvalidSpec"

    def __init__(self, file: str, sentence: str) -> None:
        super().__init__(f"{file}: {sentence}")
        self.file = file


@dataclass(frozen=True, slots=True)
class QueueInFile:
    """An AstridQueue, where it came from and as it was written there."""

    file: str
    queue: AstridQueue
    manifest: dict[str, Json]


def read_queues(sources: Sequence[str | Path]) -> list[QueueInFile]:
    """Every AstridQueue in the files and folders of `sources`, in order; raises FileRejected.

    A folder stands for its `*.yaml` and `*.yml` files, not those of folders in it. Objects of other kinds are
    passed over; sources without any AstridQueue, and one that appears twice, are refused.
    """
    found: list[QueueInFile] = []
    seen: dict[QueueKey, str] = {}
    for file, manifest in read_manifests(sources):
        entry = _parsed(file, manifest)
        if entry.queue.key in seen:
            raise FileRejected(file, f"{KIND} {entry.queue.key} stands in {seen[entry.queue.key]} already")
        seen[entry.queue.key] = file
        found.append(entry)
    if not found:
        raise FileRejected(", ".join(map(str, sources)), f"holds no {KIND}")
    return found


def read_manifests(sources: Sequence[str | Path]) -> Iterator[tuple[str, dict[str, Json]]]:
    """Every AstridQueue as it is written, with its file and unjudged; raises FileRejected."""
    for file in (file for source in sources for file in files_of(source)):
        for manifest in _manifests(file):
            yield file, manifest


def files_of(source: str | Path) -> list[str]:
    """The files that `source` stands for now."""
    path = Path(source)
    if not path.is_dir():
        return [str(source)]
    return sorted(str(each) for each in path.iterdir() if each.suffix in (".yaml", ".yml") and each.is_file())


def _manifests(file: str) -> Iterator[dict[str, Json]]:
    try:
        documents = list(yaml.safe_load_all(_text(file)))
    except yaml.YAMLError as error:
        raise FileRejected(file, f"is not YAML: {' '.join(str(error).split())}") from error
    for document in documents:
        yield from _queues_of(file, document)


def _queues_of(file: str, document: Json) -> Iterator[dict[str, Json]]:
    if document is None:
        return
    if not isinstance(document, dict) or "kind" not in document:
        raise FileRejected(file, "holds a document that is no Kubernetes object")
    if document["kind"] == "List":
        for item in document.get("items") or ():
            yield from _queues_of(file, item)
    elif document["kind"] == KIND:
        yield document


def _parsed(file: str, manifest: dict[str, Json]) -> QueueInFile:
    metadata = manifest.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    try:
        return QueueInFile(file, parse_astrid_queue(manifest), manifest)
    except InvalidSpec as error:
        raise FileRejected(file, f"{KIND} {name or '(without a name)'}: {error}") from error


def _text(file: str) -> str:
    if file == STDIN:
        return sys.stdin.read()
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        sentence = error.strerror if isinstance(error, OSError) and error.strerror else "is not text in UTF-8"
        raise FileRejected(file, sentence) from error
