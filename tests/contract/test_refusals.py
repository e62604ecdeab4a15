"""docs/refusals.md names every failure that a user can meet and quotes every sentence with which a frame is refused."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/refusals.md").read_text()
#: Errors whose sentences the page quotes one by one.
QUOTED = {"SubtractionRefused", "NothingToDo", "FrameRejected"}
#: What stands for a number or a name.
GAP = "…"


def text_of(node: ast.expr, names: dict[str, str]) -> str:
    """A string of the source with a gap for what is filled in; names of the same function are looked up."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(text_of(part, {}) if isinstance(part, ast.Constant) else GAP for part in parts)
        case ast.Name(id=name):
            return names.get(name, GAP)
        case _:
            return GAP


def sentences_of(function: ast.FunctionDef) -> Iterator[str]:
    """The sentences of quoted errors that a function makes, raised here or handed back."""
    names: dict[str, str] = {}
    nodes = (node for node in ast.walk(function) if isinstance(node, ast.Assign | ast.Call))
    for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names[node.targets[0].id] = text_of(node.value, names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in QUOTED:
            yield from (text_of(first, names) for first in node.args[:1])


def sentences() -> list[str]:
    """All of them that say something of their own."""
    found = set()
    for path in sorted((ROOT / "workers/astrid_workers").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                found |= set(sentences_of(node))
    return sorted(sentence for sentence in found if re.search(r"\w{2}", sentence.replace(GAP, "")))


def failures() -> list[str]:
    """Names of the errors that derive from AstridError and have no kinds of their own, wherever they are defined."""
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for path in sorted((ROOT / "workers/astrid_workers").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    ours, kinds = set(), {"AstridError"}
    while kinds - ours:
        ours |= kinds
        kinds = {name for name, above in bases.items() if above & ours}
    return sorted(name for name in ours if not any(name in above for above in bases.values()))


def test_sentences_are_found() -> None:
    """Or the next test would hold for no reason."""
    assert any("of the power of" in sentence for sentence in sentences())
    assert len(sentences()) > 30


@pytest.mark.parametrize("sentence", sentences())
def test_every_refusal_of_a_frame_is_quoted(sentence: str) -> None:
    """As it is raised, with … for numbers and names."""
    assert f"`{sentence}`" in PAGE


@pytest.mark.parametrize("name", failures())
def test_every_failure_is_in_the_table(name: str) -> None:
    """With what becomes of it."""
    assert re.search(rf"^\| `{name}` \|", PAGE, re.MULTILINE)
