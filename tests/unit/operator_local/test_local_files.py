"""Edits of files are taken up whole, once, and never at the cost of what works."""

from pathlib import Path

import pytest

from astrid_operator.astrid_queue import QueueKey
from astrid_operator.local_files import SETTLE_SECONDS, LocalFiles
from astrid_operator.manifest_files import FileRejected

KEY = QueueKey("default", "naps")


class Clock:
    """Time that moves when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Edited:
    """A folder with one queue, watched; each look comes after the files have settled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.write(priority=5)
        self.files = LocalFiles([folder], self.clock)

    def write(self, name: str = "naps", **spec: object) -> None:
        fields = ", ".join(f"{field}: {value}" for field, value in spec.items())
        text = f"apiVersion: astrid.dev/v1alpha1\nkind: AstridQueue\nmetadata: {{name: {name}}}\nspec: {{{fields}}}\n"
        (self.folder / f"{name}.yaml").write_text(text)

    def look(self) -> dict:
        """What holds once the files have settled."""
        self.files()
        self.clock.now += SETTLE_SECONDS
        return dict(self.files())


@pytest.fixture
def edited(tmp_path: Path) -> Edited:
    """A watched folder."""
    return Edited(tmp_path)


def test_nothing_changes_as_long_as_the_files_do_not(edited: Edited) -> None:
    """The very same objects come back, so that the loop sees no edit."""
    first = edited.look()[KEY]
    (edited.folder / "naps.yaml").touch()
    assert edited.look()[KEY] is first


def test_an_edit_gets_the_next_generation(edited: Edited) -> None:
    """As a server would count it."""
    first = edited.look()[KEY]
    edited.write(priority=1)
    second = edited.look()[KEY]
    assert (first["metadata"]["generation"], second["metadata"]["generation"]) == (1, 2)
    assert second["spec"] == {"priority": 1}


def test_an_edit_of_one_file_leaves_the_others_alone(edited: Edited) -> None:
    """Another queue's file is no news."""
    edited.write("late")
    late = edited.look()[QueueKey("default", "late")]
    edited.write(priority=2)
    assert edited.look()[QueueKey("default", "late")] is late


def test_an_edit_waits_until_the_file_has_settled(edited: Edited) -> None:
    """Editors write in steps."""
    edited.look()
    edited.write(priority=1)
    assert edited.files()[KEY]["spec"] == {"priority": 5}
    edited.write(priority=22)
    edited.clock.now += SETTLE_SECONDS
    assert edited.files()[KEY]["spec"] == {"priority": 5}
    edited.clock.now += SETTLE_SECONDS
    assert edited.files()[KEY]["spec"] == {"priority": 22}


@pytest.mark.parametrize("text", ["spec: [", "kind: AstridQueue\n", "just words"])
def test_what_makes_no_sense_keeps_the_last_good_files(edited: Edited, text: str) -> None:
    """The trouble is said, and goes away with its reason."""
    good = edited.look()
    (edited.folder / "naps.yaml").write_text(text)
    assert edited.look() == good
    assert str(edited.folder / "naps.yaml") in edited.files.trouble
    edited.write(priority=3)
    assert edited.look()[KEY]["spec"] == {"priority": 3}
    assert edited.files.trouble == ""


def test_a_file_that_goes_takes_its_queue_with_it(edited: Edited) -> None:
    """But the last one does not: an empty folder is more likely a mistake than a wish."""
    edited.write("late")
    edited.look()
    (edited.folder / "naps.yaml").unlink()
    assert edited.look().keys() == {QueueKey("default", "late")}
    (edited.folder / "late.yaml").unlink()
    assert edited.look().keys() == {QueueKey("default", "late")}
    assert "holds no AstridQueue" in edited.files.trouble


def test_the_same_queue_twice_is_refused(edited: Edited) -> None:
    """Which of the two should hold?"""
    (edited.folder / "again.yaml").write_text((edited.folder / "naps.yaml").read_text())
    with pytest.raises(FileRejected, match=r"stands in .* already"):
        LocalFiles([edited.folder], edited.clock)
