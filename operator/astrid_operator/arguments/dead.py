"""Arguments of `astrid-operator dead`."""

import argparse

from astrid_operator.arguments.count import count_of
from astrid_operator.defaults import DRAMATIQ_NAMESPACE


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    shared = _shared()
    one = what.add_parser("list", parents=[shared], help="the dead letters of a queue, newest first")
    one.add_argument(
        "--limit", type=count_of("rows"), default=50, metavar="N", help="most rows (default: %(default)s)"
    )
    one = what.add_parser("show", parents=[shared], help="all that is known of some of them")
    one.add_argument(
        "ids", nargs="+", metavar="ID", help="id of a message, or its beginning if that is enough"
    )
    for name, line in (
        ("requeue", "send them again, with all their retries"),
        ("purge", "delete them for good"),
    ):
        one = what.add_parser(name, parents=[shared], help=line)
        one.add_argument("ids", nargs="*", metavar="ID", help="id of a message, or its beginning")
        one.add_argument("--all", action="store_true", help="every dead letter of the queue")
        one.add_argument("--yes", action="store_true", help="do not ask")
        one.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")


def _shared() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    add = parser.add_argument
    add("--queue", required=True, metavar="Q", help="the Dramatiq queue")
    add("--redis-url", metavar="URL", help="the Redis (default: REDIS_URL)")
    add(
        "--namespace",
        default=DRAMATIQ_NAMESPACE,
        metavar="NS",
        help="Dramatiq's prefix (default: %(default)s)",
    )
    add("--json", action="store_true", help="JSON instead of text")
    return parser
