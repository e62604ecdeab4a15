"""Only ordinary files under the allowed folders are read."""

import os

import pytest

from astrid_workers.errors import SourceRefused
from astrid_workers.storage.artifacts import ArtifactStore
from astrid_workers.storage.file_source import read_file
from astrid_workers.storage.https_source import HttpsReader
from astrid_workers.storage.sources import Sources


@pytest.fixture
def root(tmp_path):
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/a b.fits").write_bytes(b"inside")
    (tmp_path / "in-other").mkdir()
    (tmp_path / "in-other/x.fits").write_bytes(b"beside")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "in/link").symlink_to(tmp_path / "secret")
    (tmp_path / "in/folder-link").symlink_to(tmp_path)
    (tmp_path / "in/good-link").symlink_to(tmp_path / "in/a b.fits")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in/loop")
    os.mkfifo(tmp_path / "in/pipe")
    return tmp_path / "in"


@pytest.mark.parametrize("name", ["a b.fits", "deep/../a b.fits", "good-link"])
def test_files_under_a_root_are_read(root, name):
    """Also through links that stay inside."""
    assert read_file(f"{root}/{name}", roots=[root], max_bytes=6) == b"inside"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("../secret", "outside the folders"),
        ("link", "outside the folders"),
        ("folder-link/secret", "outside the folders"),
        ("../in-other/x.fits", "outside the folders"),
        ("none.fits", "no such file"),
        ("deep", "not an ordinary file"),
        ("pipe", "not an ordinary file"),
        ("loop", "refused"),
        ("a\0b", "absolute path"),
    ],
)
def test_everything_else_is_refused_and_said(root, name, sentence):
    """Links and `..` are followed before it is decided; a pipe is not waited for."""
    with pytest.raises(SourceRefused, match=sentence):
        read_file(f"{root}/{name}", roots=[root], max_bytes=100)


def test_without_roots_nothing_of_the_machine_is_read(root):
    """The default allows no path."""
    with pytest.raises(SourceRefused, match="ASTRID_INPUT_ROOTS: none"):
        read_file(f"{root}/a b.fits", roots=[], max_bytes=100)


def test_a_file_above_the_cap_is_refused_with_the_cap(root):
    """Before it is read."""
    with pytest.raises(SourceRefused, match="more than 5 bytes"):
        read_file(f"{root}/a b.fits", roots=[root], max_bytes=5)


@pytest.fixture
def sources(root, tmp_path):
    def no_network(_host, _port):
        pytest.fail("nothing is resolved")

    store = ArtifactStore(str(tmp_path / "artifacts"))
    store.put("incoming/x.fits", b"stored")
    return Sources(store, (root,), 100, HttpsReader(100, 1.0, resolve=no_network))


def test_each_kind_of_address_is_read_from_its_place(sources, root):
    """Paths, file:// with escapes, and the store's own addresses, which need no root."""
    assert sources.read(f"{root}/a b.fits") == b"inside"
    assert sources.read(f"file://{root}/a%20b.fits") == b"inside"
    assert sources.read(sources.store.url_of("incoming/x.fits")) == b"stored"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/x.fits", "ftp://example.org/x", "s3://bucket/x.fits", "gopher://x", "data:,x", "x.fits",
        "../secret", "file://otherhost/etc/passwd", "FILE:///etc/passwd", "javascript:1", "", "file:relative", "//h/x",
        "https://", "https:///x", "https://user:pw@example.org/x", "https://example.org:0/x", "https://user@:443/x",
        "https://[::1", "https://example.org:99999/x", "https://ex\u0430mple.org/x",
    ],
)  # fmt: skip
def test_every_other_kind_of_address_is_refused(sources, url):
    """Nothing is guessed: what is not one of four kinds is not read, and no name is resolved for it."""
    with pytest.raises(SourceRefused):
        sources.read(url)
