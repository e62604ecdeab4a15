"""`astrid-operator VERB --help` and a wrong argument are answered before anything of the work is imported, and a verb imports what it needs."""

from functools import partial
from pathlib import Path

import pytest

from astrid_operator.__main__ import VERBS
from support import ended_program

SAMPLE = str(Path(__file__).resolve().parents[3] / "manifests/samples/differencing.yaml")

#: What takes long to import, and what else tells that something of the work was.
LIBRARIES = (
    "aiohttp", "asyncio", "kopf", "kubernetes", "matplotlib", "prometheus_client", "pydantic",
    "pydantic_settings", "redis", "rich", "structlog", "yaml",
)  # fmt: skip
#: A verb's words that cannot be parsed → what is said of them.
WRONG = {
    "run": (["--log-level", "loud"], "argument --log-level: invalid choice: 'loud'"),
    "local": (["-f", "queues.yaml", "--capacity", "0"], "argument --capacity: '0' is no number of slots"),
    "simulate": (["-f", "queues.yaml", "--burst", "1.5,1"], "argument --burst: 1.5 is no number of messages"),
    "render": ([], "the following arguments are required: -f/--filename"),
    "dead": (["list", "--queue", "q", "--limit", "0"], "argument --limit: '0' is no number of rows"),
}


ended = partial(ended_program.ended, "astrid_operator", LIBRARIES)


@pytest.mark.parametrize(
    "words", [[], *([verb] for verb in VERBS), ["dead", "list"], ["dead", "purge"]], ids=" ".join
)
def test_help_imports_nothing_that_takes_long(words: list[str]) -> None:
    """Whoever looks up a flag waits neither for kopf nor for the Kubernetes client, Redis's or a settings library."""
    ending, said, complaint = ended(*words, "--help")

    assert (ending, complaint) == ("0", "")
    assert said.startswith("usage: astrid-operator ")
    assert "show this help message" in said


@pytest.mark.parametrize("verb", VERBS)
def test_a_wrong_argument_is_refused_at_once(verb: str) -> None:
    """Status 2 and what is wrong, as soon as it can be known."""
    words, sentence = WRONG[verb]
    ending, said, complaint = ended(verb, *words)

    assert (ending, said) == ("2", "")
    assert sentence in complaint


def test_a_simulation_or_a_rendering_imports_no_client() -> None:
    """What asks no server reads YAML, and starts nothing besides; a picture comes when it is asked for."""
    simulation, table, _ = ended("simulate", "-f", SAMPLE, "--burst", "3,1")
    rendering, manifests, _ = ended("render", "-f", SAMPLE, "--image", "mine:7")
    without_image, usual, _ = ended("render", "-f", SAMPLE)

    assert (simulation, rendering, without_image) == ("0 yaml", "0 yaml", "0 yaml")
    assert "3 of 3 messages finished" in table
    assert "image: mine:7" in manifests
    assert "image: astrid-worker:0.1.0" in usual


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://nowhere", "expected one of redis://"),
        ("redis://:S3cr/et@nowhere/0", "it cannot be taken apart; reserved characters"),
        ("redis://nowhere/0?ssl_cert_reqs=none", "redis-py cannot use its option ssl_cert_reqs"),
    ],
)
def test_dead_letters_are_looked_at_without_settings_and_logs(url: str, sentence: str) -> None:
    """The verb needs Redis's client, and says so of an address that is none."""
    ending, _, complaint = ended("dead", "list", "--queue", "q", "--redis-url", url)

    assert ending == "2 asyncio redis"
    assert complaint.startswith(f"--redis-url or REDIS_URL holds no Redis address: {sentence}")


def test_what_the_work_imports_is_seen(tmp_path: Path) -> None:
    """The guard above can fail: the verb that watches a cluster imports these libraries, and they are named."""
    ending, _, complaint = ended("run", KUBECONFIG=str(tmp_path / "none"))

    assert ending.startswith("1 aiohttp asyncio kopf kubernetes prometheus_client pydantic ")
    assert "No cluster is known" in complaint


def test_help_has_the_defaults_of_the_work() -> None:
    """What the help says of a flag that is left out is what the work then does."""
    from astrid_operator.settings import OperatorSettings
    from astrid_operator.simulation_world import Conditions
    from support.queue_documents import policy

    run, simulate, dead = (
        " ".join(ended(*words, "--help")[1].split()) for words in (["run"], ["simulate"], ["dead", "list"])
    )
    fields, conditions = OperatorSettings.model_fields, Conditions()

    assert f"least that is logged (default: {fields['log_level'].default})" in run
    assert f"or lines for people (default: {fields['log_format'].default})" in run
    assert conditions.start_seconds[0] == conditions.start_seconds[1]
    assert f"drawn evenly (default: {conditions.start_seconds[0]:g})" in simulate
    assert f"retried as the spec says (default: {conditions.fail_share:g})" in simulate
    assert f"draws another load (default: {conditions.seed})" in simulate
    assert f"Dramatiq's prefix (default: {policy().broker.namespace})" in dead
