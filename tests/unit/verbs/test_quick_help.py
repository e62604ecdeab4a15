"""`--help` and a wrong argument are answered before anything of the work is imported."""

from functools import partial
from pathlib import Path

import pytest

from astrid_workers.__main__ import VERBS
from support import ended_program

#: What takes long to import.
LIBRARIES = ("numpy", "scipy", "astropy", "torch")
#: A verb's words that cannot be parsed → what is said of them.
WRONG = {
    "demo": (["--observations", "many"], "argument --observations: invalid int value: 'many'"),
    "run": (["night.fits"], "the following arguments are required: REFERENCE.fits, --out"),
    "reference": (["--onto", "last"], "argument --onto: invalid choice: 'last'"),
    "submit": ([], "the following arguments are required: PATH"),
    "status": (["--every", "day"], "argument --every: invalid float value: 'day'"),
    "show": (["ztf1", "--leest", "3"], "unrecognized arguments: --leest 3"),
    "db": (["downgrade"], "argument ACTION: invalid choice: 'downgrade'"),
}


ended = partial(ended_program.ended, "astrid_workers", LIBRARIES)


@pytest.mark.parametrize("words", [*([verb] for verb in VERBS), ["db", "upgrade"]], ids=" ".join)
def test_help_imports_no_pixels(words: list[str]) -> None:
    """Whoever looks up a flag does not wait for numpy, scipy, astropy or torch."""
    ending, said, complaint = ended(*words, "--help")

    assert (ending, complaint) == ("0", "")
    assert said.startswith("usage: ")
    assert "show this help message" in said


@pytest.mark.parametrize("verb", VERBS)
def test_a_wrong_argument_is_refused_without_pixels(verb: str) -> None:
    """Status 2 and what is wrong, as soon as it can be known."""
    words, sentence = WRONG[verb]
    ending, said, complaint = ended(verb, *words)

    assert (ending, said) == ("2", "")
    assert sentence in complaint


def test_what_the_work_imports_is_seen(tmp_path: Path) -> None:
    """The guard above can fail: a verb that has work to do imports these libraries, and they are named."""
    ending, _, complaint = ended("run", "none.fits", "none.fits", "--out", str(tmp_path))

    assert ending == "2 astropy numpy scipy"
    assert complaint.startswith("astrid run: none.fits")


def test_help_has_the_defaults_of_the_work() -> None:
    """What the help says of a flag that is left out is what the work then does."""
    from astrid_workers.differencing.build_reference import StackOptions
    from astrid_workers.differencing.products import DifferenceOptions
    from astrid_workers.differencing.stacked_reference import ReferenceRequest

    _, run, _ = ended("run", "--help")
    _, reference, _ = ended("reference", "--help")

    assert f"is a candidate (default {DifferenceOptions().threshold_sigma:g})" in " ".join(run.split())
    assert f"how to subtract (default {DifferenceOptions().algorithm}: " in " ".join(run.split())
    assert f"against the median (default {StackOptions().clip_sigma:g})" in " ".join(reference.split())
    assert f"most frames (default {ReferenceRequest('s', 0, 0, None).most})" in " ".join(reference.split())
