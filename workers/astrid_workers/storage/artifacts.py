"""Pixels and pictures by key, in a folder or in S3.

Owns that nothing half-written or altered is ever read as whole: writes are atomic, never replace other bytes,
and are read back by checksum. Never knows what the bytes mean.
"""

import errno
import functools
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import fsspec
from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

from astrid_workers.errors import ArtifactDamaged, ServiceUnavailable, SettingRejected
from astrid_workers.settings import StorageSettings

#: One part of a key: starts with a letter or digit, so that `..`, hidden and temporary files are out.
_KEY_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~+=@-]*")
#: Longest key, as the columns that hold them have it.
MAX_KEY_LENGTH = 500
#: Hexadecimal digits of the checksum that set two contents of one key apart.
_TAG_LENGTH = 16
#: Seconds that the S3 client waits for a connection, and for an answer.
_S3_TIMEOUTS = {"connect_timeout": 10, "read_timeout": 60}

#: What a full or read-only disk says.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: What a file system without hard links says.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


@dataclass(frozen=True, slots=True)
class Artifact:
    """Bytes in the store. `key` and `sha256` belong together in a row."""

    key: str
    sha256: str
    size_bytes: int


class _Bucket(Protocol):
    """What a kind of store must do; paths are full, failures are OSError or BotoCoreError."""

    def write_new(self, path: str, data: bytes) -> bool:
        """Write all of `data` at `path` unless something stands there; whether it was written."""

    def size(self, path: str) -> int | None:
        """Bytes at `path`, None where nothing is."""

    def read(self, path: str) -> bytes:
        """All bytes at `path`. Raises FileNotFoundError."""


class ArtifactStore:
    """A store of immutable bytes, by fsspec URL: a folder (`file:///…` or a path) or `s3://bucket/prefix`.

    Every method raises ServiceUnavailable, naming the store, where it does not answer or is full, and
    ValueError for a key that is not a relative path of plain names.
    """

    def __init__(self, url: str) -> None:
        scheme, separator, rest = url.partition("://")
        if separator and scheme != "file":
            self._bucket: _Bucket = _Remote(url)
            self._root = rest.rstrip("/")
            self.url = f"{scheme}://{self._root}"
        else:
            self._bucket = _Folder()
            self._root = str(Path(rest if separator else url).absolute())
            self.url = Path(self._root).as_uri()

    def put(self, key: str, data: bytes) -> Artifact:
        """Store `data` and say where: at `key`, which is a no-op where the same bytes stand there already.

        Where *other* bytes stand there, they stay (a row may point at them) and the new ones go beside them,
        under `key` with their checksum in the name. So a row with the returned key and checksum stays true.
        """
        _check(key)
        sha256 = hashlib.sha256(data).hexdigest()
        with self._translated(key):
            for name in (key, _tagged(key, sha256)):
                if self._place(name, data):
                    return Artifact(name, sha256, len(data))
        msg = (
            f"artifact {name} in {self.url} is damaged: its name holds a checksum that its bytes do not have"
        )
        raise ArtifactDamaged(msg)

    def get(self, key: str, sha256: str | None = None) -> bytes:
        """The bytes at `key`. Raises ArtifactDamaged where their checksum is not the one asked for."""
        with self._translated(key):
            data = self._bucket.read(self._path(key))
        found = hashlib.sha256(data).hexdigest()
        if sha256 is not None and found != sha256:
            msg = (
                f"artifact {key} in {self.url} is damaged: it has {len(data)} bytes with checksum "
                f"{found[:12]}…, expected {sha256[:12]}…"
            )
            raise ArtifactDamaged(msg, size_bytes=len(data))
        return data

    def exists(self, key: str) -> bool:
        """Whether something stands at `key`."""
        with self._translated(key):
            return self._bucket.size(self._path(key)) is not None

    def url_of(self, key: str) -> str:
        """The full address of `key`; `key_of` takes it back."""
        _check(key)
        return f"{self.url}/{key}"

    def key_of(self, url: str) -> str | None:
        """The key that `url` is the address of, or None for an address outside this store."""
        if not url.startswith(f"{self.url}/"):
            return None
        key = url.removeprefix(f"{self.url}/")
        return key if _is_key(key) else None

    def _path(self, key: str) -> str:
        _check(key)
        return f"{self._root}/{key}"

    def _place(self, key: str, data: bytes) -> bool:
        """Whether `data` stands at `key` now."""
        path = self._path(key)
        size = self._bucket.size(path)
        if size is None and self._bucket.write_new(path, data):
            return True
        return (size is None or size == len(data)) and self._bucket.read(path) == data

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            msg = f"the artifact store {self.url} has no artifact {key}"
            raise ServiceUnavailable(msg, service="artifact store") from error
        except OSError as error:
            said = error.strerror or str(error)
            state = "is full" if error.errno in _FULL else "does not answer"
            msg = f"the artifact store {self.url} {state}: {said} ({key})"
            raise ServiceUnavailable(msg, service="artifact store") from error
        except BotoCoreError as error:
            msg = f"the artifact store {self.url} does not answer: {error}"
            raise ServiceUnavailable(msg, service="artifact store") from error


@functools.cache
def _store(url: str, _process: int) -> ArtifactStore:
    return ArtifactStore(url)


def get_store() -> ArtifactStore:
    """The process-wide store of `StorageSettings`; nothing is connected or made until it is used."""
    # A client's threads do not survive a fork, hence one store per process.
    return _store(StorageSettings().artifacts_url, os.getpid())


def _check(key: str) -> None:
    if not _is_key(key):
        msg = f"{key[:MAX_KEY_LENGTH]!r} is not an artifact key: expected names joined by /, without . and .."
        raise ValueError(msg)


def _is_key(key: str) -> bool:
    return len(key) <= MAX_KEY_LENGTH and all(_KEY_PART.fullmatch(part) for part in key.split("/"))


def _tagged(key: str, sha256: str) -> str:
    path = PurePosixPath(key)
    suffix = "".join(path.suffixes[-2:]) if path.suffix in (".gz", ".fz") else path.suffix
    return str(path.with_name(f"{path.name.removesuffix(suffix)}~{sha256[:_TAG_LENGTH]}{suffix}"))


class _Folder:
    """Files; new ones appear whole under their name or not at all, also after a power cut."""

    def write_new(self, path: str, data: bytes) -> bool:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{uuid.uuid4().hex}.partial")
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            return _appear(partial, target)
        finally:
            partial.unlink(missing_ok=True)

    def size(self, path: str) -> int | None:
        with suppress(FileNotFoundError, NotADirectoryError):
            found = Path(path).stat()
            return found.st_size if stat.S_ISREG(found.st_mode) else None
        return None

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()


def _appear(partial: Path, target: Path) -> bool:
    try:
        os.link(partial, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS or target.exists():
            raise
        partial.replace(target)
    descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return True


class _Remote:
    """Any other fsspec file system; an object appears whole by nature."""

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = {"use_listings_cache": False}
        if url.startswith(("s3://", "s3a://")):
            options["config_kwargs"] = _S3_TIMEOUTS
        try:
            self._fs, _ = fsspec.core.url_to_fs(url, **options)
        except (ValueError, ImportError) as error:
            msg = f"ASTRID_ARTIFACTS_URL cannot be used: {error}; expected a folder or s3://bucket/prefix"
            raise SettingRejected(msg) from error

    def write_new(self, path: str, data: bytes) -> bool:
        try:
            self._fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except (NotImplementedError, OSError) as error:
            if "PreconditionFailed" in str(error) or "At least one of the pre-conditions" in str(error):
                return False
            if not isinstance(error, NotImplementedError) and "NotImplemented" not in str(error):
                raise
            # A server without conditional writes: what is left is the gap since `size` was asked.
            self._fs.pipe_file(path, data)
        return True

    def size(self, path: str) -> int | None:
        with suppress(FileNotFoundError):
            info = self._fs.info(path)
            return int(info["size"]) if info["type"] == "file" else None
        return None

    def read(self, path: str) -> bytes:
        data: bytes = self._fs.cat_file(path)
        return data
