"""What the documents say of the code is so: tests, fields, variables, flags, paths and links that they name exist."""

import ast
import importlib
import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

Json = Any

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "changelog.d/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
STATUS = (ROOT / "docs/status.md").read_text()

#: Module of a command line → its name in the documents.
PROGRAMS = {"astrid_workers": "astrid", "astrid_operator": "astrid-operator"}
#: A command, as status.md names it → how its help is asked for.
HELP: dict[str, list[str]] = {
    **{
        f"{name} {verb}": [module, verb]
        for module, name in PROGRAMS.items()
        for verb in importlib.import_module(f"{module}.__main__").VERBS
    },
    "start_workers": ["astrid_workers.start_workers"],
}


def section(title: str) -> str:
    """The text below one heading of status.md."""
    (found,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", STATUS, re.MULTILINE | re.DOTALL)
    return found


def rows(text: str) -> Iterator[list[str]]:
    """Cells of the rows of all tables in `text`, headings left out."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and not set(cells[0]) <= set("-"):
            yield cells


def quoted(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`\n]+)`", text)


@cache
def modules_of_tests() -> dict[str, str]:
    """Name of a test module → its text; names are unique."""
    return {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}


@cache
def functions_of(module: str) -> frozenset[str]:
    """Names of the tests in one module."""
    found = ast.parse(modules_of_tests()[module]).body
    return frozenset(each.name for each in found if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))


NAMED_TESTS = sorted(
    {
        name
        for document in DOCUMENTS
        for name in re.findall(r"`(test_\w+\.py::test_\w+(?:\[[^]`]+\])?)`", document.read_text())
    }
)


@pytest.mark.parametrize("name", NAMED_TESTS)
def test_every_test_that_is_named_exists(name: str) -> None:
    """A renamed or removed test is a claim without evidence; a case in brackets stands in its module as it is written."""
    module, function, case = re.fullmatch(r"(\w+\.py)::(\w+)(?:\[(.+)\])?", name).groups()  # type: ignore[union-attr]

    assert function in functions_of(module)
    assert case is None or f'"{case}"' in modules_of_tests()[module]


def test_every_row_names_its_evidence() -> None:
    """A claim has a test, or says that it has none."""
    silent = [
        cells
        for title in ("Actors", "Fields of AstridQueue", "Environment variables", "Flags")
        for cells in rows(section(title))
        if cells[-1] not in ("shown by", "what it does is shown by")
        and not re.search(r"::test_|no test", cells[-1])
    ]

    assert silent == []


def _leaves(schema: Json, path: str = "") -> Iterator[str]:
    inner, mark = (schema["items"], "[]") if "items" in schema else (schema, "")
    if "properties" not in inner:
        yield path + mark
    for name, each in inner.get("properties", {}).items():
        yield from _leaves(each, f"{path}{mark}.{name}".lstrip("."))


def test_every_field_of_the_resource_is_in_the_table() -> None:
    """Neither a field without a row nor a row without a field, in spec and status."""
    crd = yaml.safe_load((ROOT / "crds/astridqueues.astrid.dev.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    spec, status = section("Fields of AstridQueue").split("| `status.` |")
    named = {
        part: [field for cells in rows(text) for field in quoted(cells[0]) if not field.endswith(".")]
        for part, text in (("spec", spec), ("status", status))
    }

    for part, fields in named.items():
        assert sorted(fields) == sorted(set(_leaves(schema[part])))


def test_every_actor_is_in_the_table() -> None:
    """What the broker declares stands there on its queue; what stands there besides is absent, and says so."""
    from astrid_workers.broker import get_broker
    from astrid_workers.pipeline import CHAIN

    for module in (*(link.module for link in CHAIN), "astrid_workers.app"):
        importlib.import_module(module)
    declared = {(actor.queue_name, name) for name, actor in get_broker().actors.items()}
    table = [cells for cells in rows(section("Actors")) if cells[0] != "queue"]
    named = {(queue, name): state for queue, names, state, _ in table for name in quoted(names)}

    assert declared <= named.keys()
    assert all(named[each].startswith("done") for each in declared)
    assert all(named[each].startswith("absent") for each in named.keys() - declared)


def _variables_of_the_workers() -> set[str]:
    from astrid_workers import config, settings

    classes = [
        each
        for each in vars(settings).values()
        if isinstance(each, type) and issubclass(each, settings.EnvironmentSettings) and each.model_fields
    ]
    names = {
        f"{each.model_config['env_prefix']}{name}".upper()  # type: ignore[typeddict-item]
        for each in classes
        for name in each.model_fields
    }
    return names | set(config.variables()) | _environment_of_a_pod()


def _environment_of_a_pod() -> set[str]:
    from astrid_operator.rules import RESERVED_VARIABLES

    return set(RESERVED_VARIABLES) - {"HOME"}


def _variables_of_the_operator() -> set[str]:
    from astrid_operator.settings import OperatorSettings

    return {
        f"ASTRID_OPERATOR_{name}".upper() for name in OperatorSettings.model_fields if name != "redis_url"
    }


def test_every_variable_is_in_its_table() -> None:
    """Settings of both programs and what a pod is told; none that nobody reads."""
    named = {
        name
        for cells in rows(section("Environment variables"))
        for name in quoted(cells[0])
        if cells[0] != "variable"
    }

    assert named == _variables_of_the_workers() | _variables_of_the_operator() | {"WORKER_LOG_LEVEL"}


@cache
def help_of(*words: str) -> str:
    """What `--help` of a command prints."""
    module, *rest = words
    program = importlib.import_module(f"{module}.__main__" if module in PROGRAMS else module)
    printed = io.StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        program.main([*rest, "--help"])
    return printed.getvalue()


def actions_of(*words: str) -> list[str]:
    """The commands below one command, as its help lists them."""
    return re.findall(r"^    ([a-z]+)(?: |$)", help_of(*words).partition("\noptions:\n")[0], re.MULTILINE)


def flags_in(text: str) -> set[str]:
    """Long options in a text."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


def options_of(text: str) -> set[str]:
    """Long options that a help explains: at the beginning of a line, before their description."""
    lines = re.findall(r"^  (-.*?)(?:  |$)", text.split("\noptions:\n", 1)[1], re.MULTILINE)
    return flags_in(" ".join(lines)) - {"--help"}


def all_options_of(*words: str) -> set[str]:
    """Long options of a command and of those below it."""
    texts = [help_of(*words), *(help_of(*words, action) for action in actions_of(*words))]
    return set().union(*(options_of(text) for text in texts))


@pytest.mark.parametrize("command", HELP)
def test_every_flag_is_in_the_table(command: str) -> None:
    """Neither a flag without a row nor a row without a flag."""
    named = [cells[1] for cells in rows(section("Flags")) if quoted(cells[0]) == [command]]

    assert flags_in(" ".join(named)) == all_options_of(*HELP[command])


@pytest.mark.parametrize("command", HELP)
def test_help_says_what_each_flag_is_for(command: str) -> None:
    """A newcomer reads a description beside every flag, and one of the verb itself."""
    for words in (HELP[command], *([*HELP[command], action] for action in actions_of(*HELP[command]))):
        text = help_of(*words)
        entries = re.split(r"^  (?=-)", text.partition("\noptions:\n")[2], flags=re.MULTILINE)[1:]
        silent = [each for each in entries if not re.match(r"-[^\n]*?(?:  +|\n {8,})\S", each)]

        assert entries
        assert silent == []


def _commands(text: str) -> Iterator[list[str]]:
    """Commands in the shell blocks of a text, continued lines joined, words of the environment left out."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = line.partition(" #")[0].split()
            if words:
                yield words


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_use_verbs_targets_and_flags_that_exist(document: Path) -> None:
    """Whoever copies a command from a document is understood."""
    text = document.read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"`make ([a-z0-9-]+)`", text)) <= targets
    for program, *words in _commands(text):
        if program == "make":
            assert words[0] in targets
        if (name := program.removeprefix(".venv/bin/")) in ("astrid", "astrid-operator"):
            assert flags_in(" ".join(words)) <= all_options_of(*HELP[f"{name} {words[0]}"])
        if words[:2] == ["-m", "astrid_workers.start_workers"]:
            assert flags_in(" ".join(words)) <= all_options_of(*HELP["start_workers"])


#: Beginnings by which a word in backticks is known to be a path of the repository.
TOPS = (
    "operator/",
    "workers/",
    "crds/",
    "manifests/",
    "docs/",
    "tests/",
    "benchmarks/",
    "changelog.d/",
    "requirements/",
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_paths_and_links_resolve(document: Path) -> None:
    """Paths of the repository, in backticks and in commands, and targets of links, are there."""
    text = document.read_text()
    links = [
        target.partition("#")[0]
        for target in re.findall(r"\]\(([^)\s]+)\)", text)
        if "://" not in target and not target.startswith("#")
    ]
    named = [
        word for word in quoted(text) if word.startswith(TOPS) or re.match(r"Dockerfile\.|[A-Z]+\.md$", word)
    ]
    named += [word for words in _commands(text) for word in words if word.startswith(TOPS)]

    assert [link for link in links if not (document.parent / link).exists()] == []
    assert [word for word in named if not (ROOT / word).exists()] == []


def test_modules_that_the_architecture_names_exist() -> None:
    """A module in backticks is somewhere in one of the halves."""
    there = {path.name for half in ("operator", "workers", "tests") for path in (ROOT / half).rglob("*.py")}
    named = re.findall(r"`(?:[a-z_]+/)*([a-z_]+\.py)`", (ROOT / "docs/architecture.md").read_text())

    assert [name for name in named if name not in there] == []


def test_the_example_of_a_reason_is_what_the_operator_says() -> None:
    """The sentence in README comes from the code, to the letter."""
    from astrid_operator.fleet import FleetState
    from astrid_operator.scaling import Demand, DemandReading, ScalingMemory, decide
    from support.queue_documents import policy

    decision, _ = decide(
        policy(scaling={"expectedTaskSeconds": 10}),
        DemandReading(1000.0, Demand(ready=12), "", 1000.0),
        FleetState(exists=True, desired=2, current=2, ready=1, starting=1),
        ScalingMemory(started_at=0.0),
        1000.0,
    )

    assert f"\n{decision.message}\n" in (ROOT / "README.md").read_text()


def test_the_columns_in_the_readme_are_those_that_kubectl_prints() -> None:
    """The example of `kubectl get` has the columns of the resource."""
    crd = yaml.safe_load((ROOT / "crds/astridqueues.astrid.dev.yaml").read_text())
    columns = crd["spec"]["versions"][0]["additionalPrinterColumns"]
    shown = [each["name"].upper() for each in columns if not each.get("priority")]

    assert ["NAME", *shown] in [line.split() for line in (ROOT / "README.md").read_text().splitlines()]


@pytest.mark.parametrize(
    "document", [ROOT / "README.md", ROOT / "docs/architecture.md"], ids=lambda path: path.name
)
def test_the_three_endings_are_told_alike(document: Path) -> None:
    """Done; nothing to do; failed: the same three words wherever a stage's endings are explained."""
    (sentence,) = re.findall(r"[^.]*\b(?:one of three ways|Three endings)[^.]*\.", document.read_text())
    words = sentence.replace("*", "").lower()

    assert words.index("done") < words.index("nothing to do") < words.index("failed")


def test_a_fragment_is_one_sentence_of_a_known_kind() -> None:
    """Releases gather them without reading code."""
    fragments = [path for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md"]

    assert [
        path.name
        for path in fragments
        if path.suffixes[-2:-1] not in ([".added"], [".changed"], [".fixed"], [".removed"])
    ] == []
    assert [path.name for path in fragments if not path.read_text().strip().endswith(".")] == []
