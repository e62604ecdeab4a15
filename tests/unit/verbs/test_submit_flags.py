"""Flags of `astrid submit` that go with every file of a night."""

import json

import pytest

from astrid_workers.__main__ import main
from astrid_workers.cli import submit
from astrid_workers.storage.database import configured_database
from support.fits_files import fits_bytes


@pytest.fixture
def night(tmp_path, monkeypatch):
    """Two frames and three masters in a folder that workers may read, and a database of its own."""
    for name in ("night/a", "night/b", "bias", "dark", "flat"):
        path = tmp_path / f"{name}.fits"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(fits_bytes(OBJECT=name))
    monkeypatch.setenv("ASTRID_DATABASE_URL", f"sqlite:///{tmp_path}/astrid.sqlite3")
    monkeypatch.setenv("ASTRID_ARTIFACTS_URL", str(tmp_path / "artifacts"))
    monkeypatch.setenv("ASTRID_INPUT_ROOTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    configured_database().engine.dispose()


def test_masters_go_with_every_frame(night, capsys):
    """--bias, --dark and --flat stand in each payload, as addresses that workers can read."""
    masters = [word for kind in ("bias", "dark", "flat") for word in (f"--{kind}", f"{kind}.fits")]
    assert main(["submit", "night", *masters, "--dry-run", "--json"]) == 0
    items = json.loads(capsys.readouterr().out)["items"]

    assert len(items) == 2
    for item in items:
        for kind in ("bias", "dark", "flat"):
            assert item["payload"][f"{kind}_frame"] == str(night / f"{kind}.fits")


def test_the_journal_is_where_it_was_asked_for(night, capsys, monkeypatch):
    """--journal: what was sent by one of them is not skipped for another."""
    sent = []
    monkeypatch.setattr(submit, "send", lambda *message: sent.append(message) or "message")
    for journal in ("one.jsonl", "one.jsonl", "two.jsonl"):
        main(["submit", "night/a.fits", "--journal", journal])

    assert (len(sent), (night / "one.jsonl").exists(), (night / "two.jsonl").exists()) == (2, True, True)
