"""Files with AstridQueues: what is read, what is refused, and what `render` prints."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import yaml

from astrid_operator import render
from astrid_operator.arguments.render import configure
from astrid_operator.manifest_files import FileRejected, read_queues
from astrid_operator.settings import OperatorSettings

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT / "manifests/samples"
EXAMPLES = ROOT / "manifests/examples"

#: The earlier system's table: queue → priority, retries, seconds, threads.
EARLIER_TABLE = {
    "observation_ingestion": (1, 3, 300, 2),
    "preprocessing": (2, 3, 600, 2),
    "differencing": (3, 3, 900, 1),
    "detection": (4, 3, 1200, 1),
    "curation": (5, 2, 300, 1),
    "notification": (6, 2, 60, 3),
}

HEAD = "apiVersion: astrid.dev/v1alpha1\nkind: AstridQueue\nmetadata: {name: detection}\n"


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    configure(parser)
    return render.main(parser.parse_args(list(arguments)))


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"ASTRID_OPERATOR_IMAGE": "registry/mine:7"},
        {"astrid_operator_image": "registry/mine:8"},
        {"ASTRID_OPERATOR_IMAGE": ""},
    ],
)
def test_the_image_is_the_operators_own_setting(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --image the manifests name what the operator would use, although its settings are not read."""
    monkeypatch.delenv("ASTRID_OPERATOR_IMAGE", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert run("-f", str(SAMPLES / "detection.yaml")) == 0
    deployment = next(yaml.safe_load_all(capsys.readouterr().out))
    pod = deployment["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == OperatorSettings().image


def test_samples_have_the_earlier_systems_settings() -> None:
    """Six queues, each in its file, with the table that clients know."""
    entries = read_queues([SAMPLES])
    specs = {entry.queue.spec.queue_name: entry.queue.spec for entry in entries}

    assert {
        name: (spec.priority, spec.max_retries, spec.timeout_seconds, spec.concurrency)
        for name, spec in specs.items()
    } == EARLIER_TABLE
    assert {Path(entry.file).stem for entry in entries} == {entry.queue.key.name for entry in entries}
    assert all(spec.enabled and spec.is_ours and spec.worker_type == name for name, spec in specs.items())


@pytest.mark.parametrize(
    "path", [*SAMPLES.glob("*.yaml"), *EXAMPLES.glob("*.yaml")], ids=lambda path: path.name
)
def test_every_manifest_renders(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever copies a sample or an example starts from something that works."""
    assert run("-f", str(path)) == 0
    kinds = [document["kind"] for document in yaml.safe_load_all(capsys.readouterr().out)]

    assert kinds == ["Deployment", "PodDisruptionBudget"]


def test_folders_hold_what_kubectl_can_apply() -> None:
    """`kubectl apply -f` of a folder takes every file in it as an object: a kustomization there would fail."""
    for folder in (SAMPLES, EXAMPLES):
        documents = [each for path in folder.iterdir() for each in yaml.safe_load_all(path.read_text())]
        assert {document["kind"] for document in documents} == {"AstridQueue"}


def test_a_folder_and_several_documents_are_read_in_order(tmp_path: Path) -> None:
    """Other kinds are passed over, and lists are opened."""
    (tmp_path / "b.yaml").write_text(HEAD + "spec: {}\n---\nkind: ConfigMap\n---\n")
    items = [
        yaml.safe_load(HEAD.replace("detection", name) + "spec: {}") for name in ("curation", "differencing")
    ]
    (tmp_path / "a.yml").write_text(yaml.safe_dump({"kind": "List", "items": items}))
    (tmp_path / "notes.txt").write_text("not mine")

    assert [entry.queue.key.name for entry in read_queues([tmp_path])] == [
        "curation",
        "differencing",
        "detection",
    ]


#: What is in the file → what a person reads after its name.
BAD_FILES: dict[str, tuple[str, str]] = {
    "a bad spec": (
        HEAD + "spec: {replicas: 20}",
        "AstridQueue detection: spec.replicas is 20: must be at most scaling.maxReplicas",
    ),
    "no spec": (HEAD, "AstridQueue detection: spec is not given: must be given"),
    "no name": (
        HEAD.replace("name: detection", "") + "spec: {}",
        "AstridQueue (without a name): metadata.name is not given: must be a string",
    ),
    "no YAML": ("a: [1", "is not YAML: while parsing a flow sequence"),
    "no object": ("just words", "holds a document that is no Kubernetes object"),
    "nothing": ("", "holds no AstridQueue"),
    "one twice": (HEAD + "spec: {}\n---\n" + HEAD + "spec: {}", "AstridQueue default/detection stands in"),
}


@pytest.mark.parametrize(("text", "sentence"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_ends_with_two_and_one_sentence(
    text: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """File, object, field, value and expectation; nothing is printed that could be applied by mistake."""
    file = tmp_path / "queue.yaml"
    file.write_text(text)

    assert run("-f", str(file)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"{file}: {sentence}")
    assert told.err.count("\n") == 1


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    """Missing or binary: the sentence says which file."""
    file = tmp_path / "queue.yaml"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(FileRejected, match=r"queue\.yaml: (No such file|is not text)"):
        read_queues([file])


def test_image_of_the_command_line_is_the_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the operator's own setting would be."""
    (tmp_path / "q.yaml").write_text(HEAD + "spec: {}")
    run("-f", str(tmp_path), "--image", "mine:7")
    deployment: Any = next(yaml.safe_load_all(capsys.readouterr().out))

    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "mine:7"
