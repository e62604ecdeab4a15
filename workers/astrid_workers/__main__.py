"""The astronomer's command line, `astrid`.

Owns the list of verbs and their order in `--help`. A verb's arguments stand in `cli/arguments/`, its work in
`cli/`; the work is imported only when it is to be done, so that help and a wrong argument are answered at
once.
"""

import argparse
import gc
import importlib
import sys
from types import ModuleType

from astrid_workers.kept_memory import keep_freed_memory
from astrid_workers.numeric_threads import limit_numeric_threads

#: verb → (module under `cli` and under `cli.arguments`, one line for --help)
VERBS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "run the whole pipeline on a simulated sky, on this machine, and write a report"),
    "run": ("run", "difference one science frame against one reference, without any server"),
    "reference": ("reference", "build one deep reference from several frames of a field"),
    "submit": ("submit", "send observations (files, folders, a CSV) to the pipeline"),
    "status": ("status", "what waits, what runs and how many workers there are, per queue"),
    "show": ("show", "one observation: where it stands, its runs, candidates and detections"),
    "db": ("db", "upgrade or inspect the database schema"),
}
#: Verbs that work through images in this process. Their matrices are too small for threads, which would only
#: wait for one another, and use CPU for it.
IMAGING = ("run", "reference")


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser; with `only`, that verb's arguments are filled in and the others stand as names."""
    parser = argparse.ArgumentParser(
        prog="astrid",
        description="From nightly images to reviewed transient discoveries.",
        epilog="`astrid VERB --help` says more. Messages go to REDIS_URL (localhost); rows and files to "
        "ASTRID_DATABASE_URL and ASTRID_ARTIFACTS_URL (below out/astrid of the working folder).",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, (module, line) in VERBS.items():
        sub = verbs.add_parser(
            verb, help=line, description=line, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if verb == only:
            importlib.import_module(f"astrid_workers.cli.arguments.{module}").configure(sub)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return its exit status: 0 done, 1 failed, 2 unusable input, 3 nothing to do."""
    arguments = sys.argv[1:] if argv is None else argv
    only = next((word for word in arguments if word in VERBS), None)
    if argv is None and only in IMAGING:  # the process is ours, and has not imported numpy yet
        limit_numeric_threads(1)
        keep_freed_memory()
    options = build_parser(only).parse_args(arguments)
    status: int = _work(VERBS[options.verb][0]).main(options)
    return status


def _work(name: str) -> ModuleType:
    """The module with what a verb does.

    What imports leave lives as long as the process: to look for garbage among it while it grows would take a
    seventh of their time.
    """
    gc.disable()
    try:
        module = importlib.import_module(f"astrid_workers.cli.{name}")
        gc.freeze()
    finally:
        gc.enable()
    return module


if __name__ == "__main__":
    sys.exit(main())
