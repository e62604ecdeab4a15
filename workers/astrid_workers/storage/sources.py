"""The bytes behind an address that a message names.

Owns which kinds of address there are: the artifact store's own, https, and files under the allowed folders.
Never decides what the bytes are.
"""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from astrid_workers.errors import SourceRefused
from astrid_workers.settings import StorageSettings
from astrid_workers.storage.artifacts import ArtifactStore
from astrid_workers.storage.file_source import read_file
from astrid_workers.storage.https_source import HttpsReader


@dataclass(frozen=True, slots=True)
class Sources:
    """What may be read, within which caps."""

    store: ArtifactStore
    roots: tuple[Path, ...]
    max_bytes: int
    https: HttpsReader

    def read(self, url: str) -> bytes:
        """All bytes behind `url`: `https://…`, `file:///…`, an absolute path, or an address in the store.

        Raises SourceRefused for anything else and for what may not be read, ServiceUnavailable for what does
        not answer.
        """
        key = self.store.key_of(url)
        if key is not None:
            return self.store.get(key)
        if url.startswith("https://"):
            return self.https.read(url)
        return read_file(_local_path(url), roots=self.roots, max_bytes=self.max_bytes)


def configured_sources(settings: StorageSettings, store: ArtifactStore) -> Sources:
    """What the settings allow to be read."""
    https = HttpsReader(max_bytes=settings.max_input_bytes, timeout_seconds=settings.fetch_timeout_seconds)
    return Sources(store, settings.allowed_roots, settings.max_input_bytes, https)


def _local_path(url: str) -> str:
    if url.startswith("/"):
        return url
    try:
        parts = urlsplit(url)
    except ValueError as error:
        msg = f"an address is refused: {error}"
        raise SourceRefused(msg) from error
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return unquote(parts.path)
    kind = f"{parts.scheme}:// addresses are" if parts.scheme else "a relative path is"
    msg = f"{kind} refused: expected https://, file:///, an absolute path or an address in the artifact store"
    raise SourceRefused(msg)
