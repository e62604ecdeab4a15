"""`astrid-operator`: the verbs, one line each.

Owns the list of verbs and their order in `--help`. A verb's arguments stand in `arguments/`; what it does is
imported only when it is to be done, so that help and a wrong argument are answered at once, and only `run`
needs kopf and the Kubernetes client.
"""

import argparse
import gc
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

#: verb → (module with what it does, one line for --help); its arguments stand in `arguments/<verb>.py`
VERBS: dict[str, tuple[str, str]] = {
    "run": ("cluster", "run the operator on a Kubernetes cluster"),
    "local": ("local", "run the fleets of AstridQueue files on this machine"),
    "simulate": ("simulate", "replay a load against AstridQueue files, and say what their fleets would do"),
    "render": ("render", "print what the operator would create for AstridQueue files"),
    "dead": ("dead", "look at dead letters, send them again, delete them"),
}


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser; with `only`, that verb's arguments are filled in and the others stand as names."""
    parser = argparse.ArgumentParser(prog="astrid-operator", description="Keeps fleets of workers per queue.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, (_, line) in VERBS.items():
        sub = verbs.add_parser(verb, help=line, description=line)
        if verb == only:
            importlib.import_module(f"astrid_operator.arguments.{verb}").configure(sub)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb that `arguments` name; its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    only = next((word for word in given if word in VERBS), None)
    options = build_parser(only).parse_args(given)
    status: int = _work(VERBS[options.verb][0]).main(options)
    return status


def _work(name: str) -> ModuleType:
    """The module with what a verb does.

    What imports leave lives as long as the process: to look for garbage among it while it grows takes a part
    of their time.
    """
    gc.disable()
    try:
        module = importlib.import_module(f"astrid_operator.{name}")
        gc.freeze()
    finally:
        gc.enable()
    return module


if __name__ == "__main__":
    raise SystemExit(main())
