"""Which AstridQueue has a Dramatiq queue: one database is one, however its address is spelled."""

from pathlib import Path

import pytest

from astrid_operator.astrid_queue import AstridQueue, QueueKey, parse_astrid_queue
from astrid_operator.brokers import Brokers
from astrid_operator.claims import claims
from astrid_operator.errors import QueueTaken

SENTINELS = "redis+sentinel://s1,s2:26380/astrid/1"

#: An older AstridQueue's address, and one of the same database.
SAME = [
    ("redis://redis.infra:6379/0", "redis://redis.infra/0"),
    ("redis://redis.infra:6379/0", "redis://c:pw@redis.infra:6379/0"),
    ("redis://redis.infra:6379/0", "redis://redis.infra"),
    ("redis://redis.infra:6379/0", "redis://Redis.INFRA:6379"),
    ("redis://redis.infra:6379/0", "redis://redis.infra?socket_timeout=3&client_name=x"),
    ("redis://redis.infra/3", "redis://redis.infra?db=3"),
    ("redis://redis.infra/3", "redis://redis.infra/7?db=3"),
    ("redis://redis.infra/0?db=3&client_name=x", "redis://redis.infra/0?client_name=x&db=3"),
    ("redis:///0", "redis://localhost"),
    ("rediss://redis.infra?ssl_ca_certs=/ca.crt", "rediss://redis.infra:6379/0"),
    ("redis://[::1]/0", "redis://:pw@[::1]:6379"),
    ("unix:///run/redis.sock", "unix://u:pw@/run/redis.sock?db=0"),
    (SENTINELS, "redis+sentinel://u:pw@S2:26380,s1:26379/astrid/1?sentinel_password=dog"),
    (SENTINELS, "redis+sentinel://s1/astrid?db=1"),
]

#: The same of two databases.
DIFFERENT = [
    ("redis://redis.infra/0", "rediss://redis.infra/0"),
    ("redis://redis.infra/0", "redis://redis.infra/1"),
    ("redis://redis.infra/0", "redis://redis.infra:6380/0"),
    ("redis://redis.infra/0", "redis://redis.other/0"),
    ("unix:///run/redis.sock", "unix:///run/Redis.sock"),
    (SENTINELS, "redis+sentinel://s1,s2:26380/other/1"),
    (SENTINELS, "redis+sentinel://s1,s2:26380/astrid/2"),
    (SENTINELS, "redis+sentinel://s3/astrid/1"),
    (SENTINELS, "redis://s1:26379/1"),
]


def queues_at(folder: Path, *urls: str, prefix: str = "dramatiq") -> dict[QueueKey, AstridQueue]:
    """AstridQueues a, b, … of one Dramatiq queue, the oldest first, each with the broker at its address.

    `prefix` is the last one's namespace of Dramatiq.
    """
    found: dict[QueueKey, AstridQueue] = {}
    for year, (name, url) in enumerate(zip("abc", urls, strict=False), 2020):
        file = folder / name / "astrid-redis" / "url"
        file.parent.mkdir(parents=True)
        file.write_text(url)
        last = {"broker": {"namespace": prefix}} if name == "abc"[len(urls) - 1] else {}
        metadata = {"name": "detection", "namespace": name, "uid": name, "generation": 1}
        queue = parse_astrid_queue(
            {
                "apiVersion": "astrid.dev/v1alpha1",
                "kind": "AstridQueue",
                "metadata": {**metadata, "creationTimestamp": f"{year}-01-01T00:00:00Z"},
                "spec": last,
            }
        )
        found[queue.key] = queue
    return dict(reversed(found.items()))


@pytest.mark.parametrize(("old", "young"), [*SAME, *((young, old) for old, young in SAME)])
def test_one_database_in_two_spellings_is_served_once(tmp_path: Path, old: str, young: str) -> None:
    """By the older, and the younger is told whose it is."""
    granted, refused = claims(queues_at(tmp_path, old, young), Brokers(tmp_path, None))

    assert [key.namespace for key in granted] == ["a"]
    (error,) = refused.values()
    assert isinstance(error, QueueTaken)
    assert str(error) == "Queue 'detection' is served by the older AstridQueue a/detection"


@pytest.mark.parametrize(("old", "young"), DIFFERENT)
def test_two_databases_are_served_by_two(tmp_path: Path, old: str, young: str) -> None:
    """What differs in where it leads is not taken for one."""
    granted, refused = claims(queues_at(tmp_path, old, young), Brokers(tmp_path, None))

    assert [key.namespace for key in granted] == ["a", "b"]
    assert refused == {}


def test_two_prefixes_on_one_database_are_two_queues(tmp_path: Path) -> None:
    """Dramatiq's namespace keeps them apart."""
    url = "redis://redis.infra/0"
    granted, _ = claims(queues_at(tmp_path, url, url, prefix="other"), Brokers(tmp_path, None))

    assert [key.namespace for key in granted] == ["a", "b"]


def test_who_is_refused_keeps_nobody_out(tmp_path: Path) -> None:
    """A list of Sentinels that is partly taken leaves the rest of them free."""
    lists = ("redis+sentinel://s1/astrid", "redis+sentinel://s1,s2/astrid", "redis+sentinel://s2/astrid")
    granted, refused = claims(queues_at(tmp_path, *lists), Brokers(tmp_path, None))

    assert [key.namespace for key in granted] == ["a", "c"]
    assert [key.namespace for key in refused] == ["b"]
