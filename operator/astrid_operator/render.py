"""`astrid-operator render`: the objects that AstridQueues in files would become.

Owns the printing and the exit status. Asks no server, and decides nothing itself (`desired.py` does).
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from astrid_operator.astrid_queue import AstridQueue
from astrid_operator.defaults import IMAGE
from astrid_operator.desired import OperatorDefaults, desired_deployment, desired_pdb
from astrid_operator.manifest_files import FileRejected, QueueInFile, read_queues

#: Exit status for input that cannot be used.
UNUSABLE = 2

#: Names the image of workers whose AstridQueue names none (`OperatorSettings.image`).
IMAGE_VARIABLE = "ASTRID_OPERATOR_IMAGE"


def main(options: argparse.Namespace) -> int:
    """Print the manifests as YAML; 2 and one sentence on standard error where a file cannot be used."""
    defaults = OperatorDefaults(image=options.image or _image_of_settings())
    try:
        queues = read_queues(options.filename)
    except FileRejected as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    sys.stdout.write(rendered(queues, defaults))
    return 0


def _image_of_settings() -> str:
    """The image that the operator's settings name, read without them: importing those takes longest of all.

    As there, the case of the variable's name does not matter.
    """
    return {name.upper(): value for name, value in os.environ.items()}.get(IMAGE_VARIABLE, IMAGE)


def rendered(queues: Sequence[QueueInFile], defaults: OperatorDefaults) -> str:
    """One YAML stream with the objects of all `queues`, each group under the file that it came from."""
    return "".join(
        _document(entry.file, each) for entry in queues for each in _objects(entry.queue, defaults)
    )


def _objects(queue: AstridQueue, defaults: OperatorDefaults) -> Iterator[dict[str, Any]]:
    yield desired_deployment(queue, defaults)
    yield desired_pdb(queue)


def _document(file: str, manifest: dict[str, Any]) -> str:
    text = yaml.safe_dump(_plain(manifest), sort_keys=False, allow_unicode=True, width=110)
    note = "# replicas are set through /scale\n" if manifest["kind"] == "Deployment" else ""
    return f"---\n# from {file}\n{note}{text}"


def _plain(value: Any) -> Any:
    """A copy without shared parts, which YAML would print as anchors."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
