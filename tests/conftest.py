"""What every test stands on: a clean environment, warnings that count, markers by folder, and a real server.

The address of the session's server is put into REDIS_URL before any test module is imported, so that the broker of this
process, built when actors are imported, talks to it; the server itself starts when a test first asks for `redis_url`.
ASTRID_TEST_REDIS_URL names a server to use instead; its databases 0 and 1 of that address are emptied for each test.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from support.redis_server import RedisServer, free_port, redis_62_binary, valkey_binary
from support.worker_processes import WorkerProcesses

pytest_plugins = ("support.databases",)

TESTS = Path(__file__).parent

#: Folder of a test → its marker.
MARKED_FOLDERS = ("functional", "cluster", "e2e")

#: Prefixes of variables that would change what is tested, and those among them that say where real parts are.
OURS = ("ASTRID_", "WORKER_", "REDIS_", "dramatiq_")
KEPT = ("ASTRID_TEST_", "ASTRID_NODE_TOOL")

_SERVER_PORT = free_port()


def pytest_configure(config: pytest.Config) -> None:
    """Clean the environment and let warnings from our own modules fail a test."""
    for name in list(os.environ):
        if name.startswith(OURS) and not name.startswith(KEPT):
            del os.environ[name]
    os.environ["REDIS_URL"] = _external_url() or f"redis://127.0.0.1:{_SERVER_PORT}/0"
    config.addinivalue_line("filterwarnings", r"error:::astrid_(workers|operator)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the marker of its folder."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        if folder in MARKED_FOLDERS:
            item.add_marker(folder)


def _external_url() -> str | None:
    return os.environ.get("ASTRID_TEST_REDIS_URL")


@pytest.fixture(autouse=True)
def _forget_settings() -> Iterator[None]:
    """Settings that a test read or changed in this process end with it."""
    yield
    if (config := sys.modules.get("astrid_workers.config")) is not None:
        config.get_worker_config.cache_clear()
        config.get_task_queues.cache_clear()


@pytest.fixture(scope="session")
def session_server() -> Iterator[RedisServer]:
    """The session's Valkey, for tests that use it and leave it running; `redis_server` is one to break."""
    server = RedisServer(valkey_binary(), port=_SERVER_PORT)
    server.start()
    yield server
    server.close()


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    """The address of an empty database on a real server; results may go to the next database."""
    if url := _external_url():
        client = redis.Redis.from_url(url)
        client.flushdb()
        return url
    server: RedisServer = request.getfixturevalue("session_server")
    server.empty()
    return server.url()


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of `redis_url`, answering in str."""
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    yield client
    client.close()


def _own_server() -> Iterator[RedisServer]:
    server = RedisServer(valkey_binary())
    server.start()
    yield server
    server.close()


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A Valkey of this test's own, to be stopped, frozen and restarted."""
    yield from _own_server()


@pytest.fixture
def other_server() -> Iterator[RedisServer]:
    """A second one, empty: to fail over to, or to be taken away."""
    yield from _own_server()


@pytest.fixture(params=["valkey", "redis-6.2"])
def each_redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Two rows: the current Valkey, and the oldest server that we say we work with."""
    if request.param == "valkey":
        yield request.getfixturevalue("redis_url")
        return
    server = RedisServer(redis_62_binary())
    server.start()
    yield server.url()
    server.close()


@pytest.fixture
def worker_processes(tmp_path: Path) -> Iterator[WorkerProcesses]:
    """Starts real worker processes and ends them with the test; what they logged is shown where it failed."""
    processes = WorkerProcesses(tmp_path / "workers")
    yield processes
    processes.close()
