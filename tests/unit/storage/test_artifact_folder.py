"""The artifact store on a folder: nothing half-written, nothing overwritten, nothing outside."""

import errno
import threading
from pathlib import Path

import pytest

from astrid_workers.errors import ArtifactDamaged, ServiceUnavailable
from astrid_workers.storage.artifacts import ArtifactStore


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(str(tmp_path / "artifacts"))


def test_bytes_come_back_by_key_and_checksum(store):
    """What was put is what is read."""
    artifact = store.put("observations/1/raw.fits", b"pixels")
    assert artifact.key == "observations/1/raw.fits"
    assert artifact.size_bytes == 6
    assert store.get(artifact.key, artifact.sha256) == b"pixels"
    assert store.exists(artifact.key)


def test_the_same_bytes_again_are_a_no_op(store, tmp_path):
    """A redelivered message writes nothing."""
    first = store.put("a/b.fits", b"x")
    file = tmp_path / "artifacts/a/b.fits"
    before = file.stat()
    assert store.put("a/b.fits", b"x") == first
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_other_bytes_never_replace_those_that_a_row_may_point_at(store):
    """Two computations of one result may differ in a bit; both rows stay readable."""
    first, second = store.put("a/b.fits.gz", b"x"), store.put("a/b.fits.gz", b"y")
    assert first.key == "a/b.fits.gz"
    assert second.key.startswith("a/b~")
    assert second.key.endswith(".fits.gz")
    assert [store.get(a.key, a.sha256) for a in (first, second)] == [b"x", b"y"]
    assert store.put("a/b.fits.gz", b"y") == second


def test_many_writers_of_one_key_all_keep_their_bytes(store):
    """The race for a name has no losers."""
    together = threading.Barrier(8)
    kept = {}

    def write(i):
        together.wait()
        kept[i] = store.put("k.fits", bytes([i % 3]) * 100)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {i: store.get(a.key, a.sha256) for i, a in kept.items()} == {
        i: bytes([i % 3]) * 100 for i in range(8)
    }
    assert len({a.key for a in kept.values()}) == 3


def test_a_damaged_artifact_is_not_taken_for_the_stored_one(store, tmp_path):
    """A flipped bit on the disk is seen, and no retry is wasted on it."""
    artifact = store.put("a.fits", b"good")
    (tmp_path / "artifacts/a.fits").write_bytes(b"evil")
    with pytest.raises(ArtifactDamaged, match=r"a\.fits .* damaged"):
        store.get("a.fits", artifact.sha256)


def test_a_missing_artifact_is_said_with_its_store(store):
    """Which store and which key, as a store may be mounted late."""
    with pytest.raises(ServiceUnavailable, match=r"artifact store file:///.* has no artifact a/none\.fits"):
        store.get("a/none.fits")
    assert not store.exists("a/none.fits")


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".hidden", "a/.b", "a\\b", "a\0b", "ä", "a" * 501],
)
def test_keys_are_relative_paths_of_plain_names(store, key):
    """A key never leads out of the store."""
    for act in (lambda: store.put(key, b""), lambda: store.get(key), lambda: store.url_of(key)):
        with pytest.raises(ValueError, match="not an artifact key"):
            act()


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "is full: No space left"),
        (errno.EDQUOT, "is full"),
        (errno.EACCES, "does not answer: Permission"),
    ],
)
def test_a_disk_that_fails_is_a_service_that_a_retry_may_help(store, tmp_path, monkeypatch, number, sentence):
    """Work waits for space; nothing half-written is left behind."""

    def fail(_descriptor):
        raise OSError(number, errno_text(number))

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(ServiceUnavailable, match=sentence):
        store.put("a.fits", b"x")
    assert list((tmp_path / "artifacts").rglob("*.*")) == []


def errno_text(number):
    return {errno.ENOSPC: "No space left on device", errno.EACCES: "Permission denied"}.get(number, "quota")


def test_a_file_system_without_hard_links_still_stores_whole_files(store, monkeypatch):
    """Some network disks have no links."""

    def refuse(*_):
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr("os.link", refuse)
    artifact = store.put("a.fits", b"x")
    assert store.get("a.fits", artifact.sha256) == b"x"
    assert store.put("a.fits", b"y").key != "a.fits"


def test_an_address_and_its_key_are_each_others_inverse(store, tmp_path):
    """The address of an artifact is recognised, and no other."""
    url = store.url_of("incoming/ab/x.fits")
    assert store.key_of(url) == "incoming/ab/x.fits"
    assert store.key_of(url + "/../../../../etc/passwd") is None
    assert store.key_of((tmp_path / "artifacts-of-another/x.fits").as_uri()) is None


def test_a_folder_is_meant_the_same_as_path_and_as_url(tmp_path, monkeypatch):
    """`out/x` and `file:///…/out/x` are one store."""
    monkeypatch.chdir(tmp_path)
    assert (
        ArtifactStore("out/x").url
        == ArtifactStore(f"file://{tmp_path}/out/x").url
        == Path(tmp_path, "out/x").as_uri()
    )
