"""Reading from an https server: a real one, and an address that is checked where it counts."""

import gzip
import itertools
import threading

import pytest

from astrid_workers.errors import ServiceUnavailable, SourceRefused
from astrid_workers.storage.https_source import HttpsReader
from support.tls_server import TlsServer

HOST = "archive.example.org"


@pytest.fixture
def server(tmp_path):
    server = TlsServer(tmp_path, [HOST])
    yield server
    server.close()


@pytest.fixture
def read(server):
    """Reads a path of the server by its name, as if its address were a public one."""

    def read(path="/x.fits", host=HOST, **changes):
        return reader(server, **changes).read(f"https://{host}:{server.port}{path}")

    return read


def reader(server, **changes):
    """A reader for which every name is this machine, and this machine is public."""
    given = {
        "max_bytes": 1000,
        "timeout_seconds": 10.0,
        "resolve": lambda _host, _port: ["127.0.0.1"],
        "is_allowed": lambda _address: True,
        "tls": server.client_tls,
    }
    return HttpsReader(**{**given, **changes})


def answering(body=b"", status=200, **headers):
    """An answer with these parts; Content-Length is right unless given."""

    def answer(handler):
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if value is not None:
                handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_a_file_is_read_from_the_address_that_was_checked(server, read):
    """The name goes into certificate check, SNI and Host; the connection to the resolved address."""
    server.answer = answering(b"pixels")
    assert read("/deep/x.fits?token=a%20b") == b"pixels"
    (seen,) = server.seen
    assert (seen["path"], seen["sni"], seen["Host"]) == (
        "/deep/x.fits?token=a%20b",
        HOST,
        f"{HOST}:{server.port}",
    )


def test_a_name_is_resolved_once(server, read):
    """A name that answers differently the second time (DNS rebinding) gets no second time."""
    server.answer = answering(b"x")
    answers = itertools.chain([["127.0.0.1"]], itertools.repeat(["10.0.0.1"]))
    assert read(resolve=lambda _host, _port: next(answers), is_allowed=lambda a: a == "127.0.0.1") == b"x"
    assert next(answers) == ["10.0.0.1"]


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["1.1.1.1", "10.0.0.1"], ["::ffff:169.254.169.254"]])
def test_an_address_that_is_not_public_is_not_connected_to(server, addresses):
    """Nor any other of the same name."""
    with pytest.raises(SourceRefused, match="not an address of the public internet"):
        HttpsReader(1000, 5.0, resolve=lambda _h, _p: addresses, tls=server.client_tls).read(
            f"https://{HOST}:{server.port}/x.fits"
        )
    assert server.seen == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_said(server, read, status):
    """It could lead anywhere after the check."""
    server.answer = answering(status=status, Location="https://169.254.169.254/")
    with pytest.raises(SourceRefused, match=f"redirects .status {status}"):
        read()
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, SourceRefused),
        (403, SourceRefused),
        (204, SourceRefused),
        (500, ServiceUnavailable),
        (503, ServiceUnavailable),
        (429, ServiceUnavailable),
    ],
)
def test_an_answer_says_whether_a_retry_may_help(server, read, status, error):
    """A missing file is not asked for again; a busy server is."""
    server.answer = answering(status=status)
    with pytest.raises(error, match=f"status {status}"):
        read()


@pytest.mark.parametrize("announced", ["1001", None])
def test_a_file_above_the_cap_is_refused_with_the_cap(server, read, announced):
    """Announced or not."""
    server.answer = answering(b"x" * 1001, Content_Length=announced)
    with pytest.raises(SourceRefused, match="more than 1000 bytes"):
        read()


def test_an_answer_is_not_unpacked(server, read):
    """A packed answer may be a bomb, and was not asked for."""
    server.answer = answering(gzip.compress(b"0" * 10_000_000)[:900], Content_Encoding="gzip")
    with pytest.raises(SourceRefused, match="content encoding gzip"):
        read()
    assert server.seen[0]["Accept-Encoding"] == "identity"


def test_a_server_that_drips_is_left_when_time_is_up(server, read):
    """Each byte comes in time, the file never."""
    clock = itertools.count(0.0, 3.0)
    goes_on = threading.Event()

    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        while not goes_on.wait(0.01):
            handler.wfile.write(b"x")

    server.answer = drip
    with pytest.raises(ServiceUnavailable, match="took longer than 10 s"):
        read(clock=lambda: next(clock))
    goes_on.set()


def test_an_answer_that_breaks_off_is_not_taken_for_the_file(server, read):
    """A retry may get the rest."""
    server.answer = answering(b"half", Content_Length="8")
    with pytest.raises(ServiceUnavailable):
        read()


def test_a_certificate_for_another_name_is_not_accepted(server, read):
    """Or one of an unknown authority."""
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        read(host="other.example.org")
    assert server.seen == []


def test_nobody_listening_is_said_without_the_query(server, read):
    """A query may hold a key."""
    server.close()
    with pytest.raises(ServiceUnavailable, match="does not answer") as gone:
        read("/x.fits?key=hidden")
    assert "hidden" not in str(gone.value)
    assert HOST in str(gone.value)


def test_no_proxy_of_the_environment_is_used(server, read, monkeypatch):
    """A proxy would connect to where it likes."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    server.answer = answering(b"direct")
    assert read() == b"direct"
