"""A database, a store and a list of sent messages of each test's own."""

import pytest

from support.seeded_archive import capture_messages, use_own_archive


@pytest.fixture
def database(monkeypatch, tmp_path):
    return use_own_archive(monkeypatch, tmp_path)


@pytest.fixture
def sent(monkeypatch):
    return capture_messages(monkeypatch)
