"""Both halves read an address of Sentinels alike, since one Secret holds it for both."""

import pytest

from astrid_operator import redis_connection
from astrid_workers import redis_address

ADDRESSES = [
    "redis+sentinel://s1:26379/astrid",
    "redis+sentinel://s1,s2:26380,[::1]:5/astrid/3",
    "redis+sentinel://user:pa%2Fss@s1/astrid",
    "redis+sentinel://:secret@s1/astrid/0?sentinel_username=watch&sentinel_password=dog",
    "rediss+sentinel://user:x@s1/astrid?ssl_ca_certs=/etc/ca.crt&sentinel_password=dog",
    "redis://one:6379/2",
    "unix:///run/redis.sock",
]


@pytest.mark.parametrize("url", ADDRESSES)
def test_both_halves_read_the_same(url: str) -> None:
    """Sentinels, service, and what is told to either kind of server."""
    ours, theirs = redis_connection.sentinel_address(url), redis_address.sentinel_address(url)
    if ours is None:
        assert theirs is None
        return
    assert theirs is not None
    for field in ("sentinels", "service", "server_arguments", "sentinel_arguments"):
        assert getattr(ours, field) == getattr(theirs, field)


def test_what_an_address_says_is_what_is_used() -> None:
    """User, password and database are the servers'; Sentinels have their own; TLS is for all."""
    found = redis_address.sentinel_address(
        "rediss+sentinel://u:p%40q@s1:1,s2/astrid/4?sentinel_username=w&sentinel_password=d&ssl_ca_certs=/ca"
    )
    assert found is not None
    assert (found.sentinels, found.service) == ((("s1", 1), ("s2", 26379)), "astrid")
    tls = {"ssl": True, "ssl_ca_certs": "/ca"}
    assert found.server_arguments == {"username": "u", "password": "p@q", "db": 4, **tls}
    assert found.sentinel_arguments == {"username": "w", "password": "d", **tls}


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis+sentinel://s1:26379", "names the service too"),
        ("redis+sentinel://user:hal/f@s1/astrid", "the port of a Sentinel is no number"),
    ],
)
def test_what_cannot_be_read_is_said_without_repeating_it(url: str, sentence: str) -> None:
    """A password with an unescaped slash must not come back in the sentence."""
    for read in (redis_connection.sentinel_address, redis_address.sentinel_address):
        with pytest.raises(ValueError, match=sentence) as failure:
            read(url)
        assert "hal" not in str(failure.value)
