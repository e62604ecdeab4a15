"""`astrid-operator`: the verbs, one line each.

Owns the choice of a verb; what a verb takes and does is its own module's, imported only when it is used:
`local` and `render` need neither kopf nor the Kubernetes client.
"""

import argparse
import sys
from collections.abc import Sequence

VERBS = {
    "run": "run the operator on a Kubernetes cluster",
    "local": "run the fleets of AstridQueue files on this machine",
    "simulate": "replay a load against AstridQueue files, and say what their fleets would do",
    "render": "print what the operator would create for AstridQueue files",
    "dead": "look at dead letters, send them again, delete them",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb that `arguments` name; its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    verb = next((each for each in given if each in VERBS), None)
    parser = argparse.ArgumentParser(prog="astrid-operator", description="Keeps fleets of workers per queue.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    chosen = {name: verbs.add_parser(name, help=line, description=line) for name, line in VERBS.items()}
    if verb == "run":
        return _run(parser, chosen[verb], given)
    if verb == "local":
        from astrid_operator import local

        local.configure(chosen[verb])
        return local.main(parser.parse_args(given))
    if verb == "simulate":
        from astrid_operator import simulate

        simulate.configure(chosen[verb])
        return simulate.main(parser.parse_args(given))
    if verb == "render":
        from astrid_operator import render

        render.configure(chosen[verb])
        return render.main(parser.parse_args(given))
    if verb == "dead":
        from astrid_operator import dead

        dead.configure(chosen[verb])
        return dead.main(parser.parse_args(given))
    parser.parse_args(given)
    return 2


def _run(parser: argparse.ArgumentParser, chosen: argparse.ArgumentParser, given: Sequence[str]) -> int:
    from astrid_operator import cluster, handlers

    cluster.configure(chosen)
    return cluster.main(parser.parse_args(given), handlers.watch)


if __name__ == "__main__":
    raise SystemExit(main())
