"""The flags of `astrid demo` that make no sense."""

from pathlib import Path

import pytest

from astrid_workers.__main__ import main

SAMPLES = Path(__file__).resolve().parents[3] / "manifests/samples"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--observations", "0"], "--observations is 0, expected 1 or more"),
        (["--queues", "/nowhere"], "--queues names /nowhere, which does not exist"),
        (["--capacity", "0"], "--capacity is 0, expected 1 or more worker processes"),
        (["--timeout-seconds", "0"], "--timeout-seconds is 0, expected more than 0"),
        (["--redis-url", "redis://here:1/3"], "--redis-url is redis://here:1/3, expected redis://host:port"),
        (["--redis-url", "here:1"], "--redis-url is (address withheld), expected redis://host:port"),
        (
            ["--redis-url", "redis://:hal/f@here:1"],
            "--redis-url is (address withheld), expected redis://host:port: it cannot be taken apart",
        ),
    ],
)
def test_flags_that_make_no_sense_are_refused(tmp_path, monkeypatch, arguments, sentence, capsys):
    """Status 2 and one sentence, before anything is started or removed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "manifests").symlink_to(SAMPLES.parent)
    assert main(["demo", *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
