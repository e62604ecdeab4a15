"""Both halves read an address alike, and show no more of it, since one Secret holds it for both."""

import pytest

import astrid_operator.redis_address
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


#: Each holds "hal" where a secret is, or is taken for something else.
FALLS_APART = [
    "redis://:hal/f+Zw==@redis.infra:6379/0",
    "redis://:hal?f@redis.infra:6379/0",
    "redis://:hal#f@redis.infra:6379/0",
    "redis://hal/f@redis.infra/0",
    "redis://hal?f@redis.infra:6379/0",
    "redis://user:12345/hal@redis.infra:6379/0",
    "redis://user:12345/6?hal@redis.infra:6379/0",
    "rediss://user:h[al@redis.infra:6379/0",
    "rediss://[hal]:x@redis.infra:6379/0",
    "redis://user:hal\u2100@redis.infra:6379/0",
    "redis://:hal/f",
    "redis://redis.infra:hal/0",
    "redis://redis.infra/0?password=hal@f",
    "redis+sentinel://user:hal/f@s1/astrid",
    "redis+sentinel://:hal#f@s1,s2/astrid",
    "redis+sentinel://s1/astrid?sentinel_password=hal@f",
    "redis+sentinel://[hal]:x/f@s1/astrid",
    "unix://user:hal/f@/run/redis.sock",
    "unix://user:hal?f@/run/redis.sock",
]


@pytest.mark.parametrize("url", FALLS_APART)
def test_what_falls_apart_is_refused_without_repeating_it(url: str) -> None:
    """Who did not encode a password is told to, and nobody reads any of it."""
    for check in (redis_connection.check_address, redis_address.check_address):
        with pytest.raises(ValueError, match="must be percent-encoded") as failure:
            check(url)
        assert "hal" not in str(failure.value)
        assert failure.value.__suppress_context__ or failure.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis+sentinel://s1:26379", "names the service too"),
        ("redis+sentinel://s1:hal/astrid", "the port of a Sentinel is no number"),
        ("http://:hal@redis.infra/0", "expected one of redis://"),
        ("hal", "expected one of redis://"),
    ],
)
def test_what_cannot_be_read_is_said_without_repeating_it(url: str, sentence: str) -> None:
    """A sentence of its own for what is no matter of encoding."""
    for check in (redis_connection.check_address, redis_address.check_address):
        with pytest.raises(ValueError, match=sentence) as failure:
            check(url)
        assert "hal" not in str(failure.value)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis://host/0?ssl_cert_reqs=none", "redis-py cannot use its option ssl_cert_reqs"),
        ("redis://host/0?socket_timeout=3&socket_timeot=3", "redis-py cannot use its option socket_timeot"),
        ("redis://host/0?protocol=hal", "redis-py cannot use its option protocol"),
        ("redis://host?port=hal", "redis-py cannot use its option port"),
        ("rediss://host/0?ssl_cert_reqs=hal", "redis-py cannot use its option ssl_cert_reqs"),
        ("redis://host/0?parser_class=hal", "redis-py cannot use its option parser_class"),
        ("unix:///run/redis.sock?port=6379", "redis-py cannot use its option port"),
        ("redis+sentinel://s1/astrid?ssl_cert_reqs=none", "redis-py cannot use its option ssl_cert_reqs"),
        ("redis+sentinel://s1/astrid?sentinel_user=hal", "redis-py cannot use its option sentinel_user"),
        ("redis://host/0?password=a&hal=b", "redis-py cannot use one of its options"),
        ("redis://host/0?ha!l=b", "redis-py cannot use one of its options"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(url: str, sentence: str) -> None:
    """Before anybody connects; what follows a password may be a piece of it."""
    for check in (redis_connection.check_address, redis_address.check_address):
        with pytest.raises(ValueError, match=f"^{sentence}$") as failure:
            check(url)
        assert "hal" not in str(failure.value)
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        redis_connection.check_address(url, redis_connection.blocking_connection)


@pytest.mark.parametrize(
    "url",
    [
        *ADDRESSES,
        "redis://host",
        "redis://host/0?socket_timeout=3&health_check_interval=5&client_name=x",
        "redis://host?db=3&password=x&username=y",
        "rediss://host/0?ssl_cert_reqs=none&ssl_ca_certs=/none",
        "rediss+sentinel://s1/astrid?ssl_cert_reqs=none",
        "unix://u:p@/run/redis.sock?db=2",
    ],
)
def test_what_can_be_used_is_not_refused(url: str) -> None:
    """Nothing is opened: no such server is there, nor such files."""
    redis_connection.check_address(url)
    redis_connection.check_address(url, redis_connection.blocking_connection)
    redis_address.check_address(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:hal@host:6379/0?password=hal#hal", "redis://***@host:6379/0"),
        ("redis://:hal@f@host/0", "redis://***@host/0"),
        ("redis://host", "redis://host"),
        ("redis://@[::1]:6379/3", "redis://[::1]:6379/3"),
        ("REDISS://hal@host:6380", "REDISS://***@host:6380"),
        (
            "rediss+sentinel://u:hal@s1,[::1]:5/astrid/3?sentinel_password=hal",
            "rediss+sentinel://***@s1,[::1]:5/astrid/3",
        ),
        ("unix://u:hal@/run/redis.sock?db=1", "unix://***@/run/redis.sock"),
        ("redis://:hal/f+Zw==@redis.infra:6379/0", "(address withheld)"),
        ("redis+sentinel://user:hal/f@s1/astrid", "(address withheld)"),
        ("http://:hal@redis.infra/0", "(address withheld)"),
        ("redis://host/0\nhal", "(address withheld)"),
        ("hal", "(address withheld)"),
    ],
)
def test_no_more_of_an_address_is_shown_than_where_it_leads(url: str, shown: str) -> None:
    """Neither user nor password nor option; nothing at all where these cannot be told from the rest."""
    assert astrid_operator.redis_address.redacted(url) == shown
    assert redis_address.redacted(url) == shown


@pytest.mark.parametrize("url", FALLS_APART)
def test_what_falls_apart_is_shown_without_what_may_be_a_secret(url: str) -> None:
    """Such an address is shown exactly because it is refused."""
    assert "hal" not in astrid_operator.redis_address.redacted(url)
    assert "hal" not in redis_address.redacted(url)
