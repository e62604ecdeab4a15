"""`astrid-operator dead`: what nobody will retry by itself, looked at and decided on by a person.

Owns the verb: its arguments, what a person sees and is asked, and how it ends. A dead letter goes only when a
person deletes it, and comes back only when a person sends it again. Needs no Kubernetes.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import redis

from astrid_operator.dead_letters import DeadLetter, DeadLetters, Outcome
from astrid_operator.dramatiq_keys import DramatiqQueue
from astrid_operator.redis_address import redacted
from astrid_operator.redis_connection import blocking_connection, check_address, trouble_of

#: Exit status where some of what was asked could not be done, and where nothing could.
PARTLY, UNUSABLE = 1, 2
#: Seconds that Redis may take for one answer.
TIMEOUT_SECONDS = 10.0
#: Characters of a sentence in a table.
SENTENCE_WIDTH = 72

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def main(options: argparse.Namespace) -> int:
    """Do what was asked: 0; 1 where some of it could not be done, 2 and a sentence where nothing could."""
    url = options.redis_url or os.environ.get("REDIS_URL")
    if not url:
        return _unusable("No Redis is named: give --redis-url or set REDIS_URL")
    try:
        check_address(url, blocking_connection)
    except ValueError as error:
        return _unusable(f"--redis-url or REDIS_URL holds no Redis address: {error}")
    try:
        with blocking_connection(url, timeout_seconds=TIMEOUT_SECONDS, name="astrid-operator-dead") as client:
            letters = DeadLetters(client, DramatiqQueue(options.namespace, options.queue))
            return _VERBS[options.what](letters, options)
    except (redis.RedisError, OSError, ValueError) as error:
        return _unusable(f"Redis {redacted(url)}: {trouble_of(error)}")


def _unusable(sentence: str) -> int:
    sys.stderr.write(f"{sentence}\n")
    return UNUSABLE


# ------------------------------------------------------------------------------------------- list, show


def _list(letters: DeadLetters, options: argparse.Namespace) -> int:
    found, total = letters.newest(options.limit), letters.count()
    if options.json:
        _write_json({"queue": options.queue, "total": total, "letters": [each.as_json() for each in found]})
        return 0
    if not total:
        sys.stdout.write(f"{options.queue} has no dead letters\n")
        return 0
    rows = [(each.id, _age(each.age_seconds), each.actor, each.arguments, each.sentence) for each in found]
    _write_table(("ID", "AGE", "ACTOR", "ARGUMENTS", "WHY"), rows, sys.stdout)
    if total > len(found):
        sys.stdout.write(f"{len(found)} of {total}; --limit shows more\n")
    return 0


def _show(letters: DeadLetters, options: argparse.Namespace) -> int:
    found, trouble = _named(letters, options.ids)
    if options.json:
        _write_json([each.as_json() for each in found])
    else:
        sys.stdout.write("\n".join(_described(each) for each in found))
    return _tell(trouble)


def _named(letters: DeadLetters, ids: Iterable[str]) -> tuple[list[DeadLetter], list[str]]:
    """The letters that `ids` mean, and a sentence for each that means none or several."""
    found: dict[str, DeadLetter] = {}
    trouble: list[str] = []
    for given in dict.fromkeys(ids):
        matching = letters.find(given)
        if len(matching) == 1:
            found[matching[0].id] = matching[0]
        else:
            what = f"means {len(matching)} dead letters" if matching else "is no dead letter"
            trouble.append(f"{given} {what} of {letters.queue.name}")
    return list(found.values()), trouble


def _described(letter: DeadLetter) -> str:
    facts = {
        "id": letter.id,
        "queue": letter.queue,
        "actor": letter.actor,
        "arguments": letter.arguments,
        "why": letter.sentence,
        "died": f"{letter.died_at} ({_age(letter.age_seconds)} ago)",
        "retries": "-" if letter.retries is None else str(letter.retries),
        "traceback": "\n" + letter.traceback if letter.traceback else "-",
    }
    return "".join(f"{name + ':':<11} {_printable(value)}\n" for name, value in facts.items())


# --------------------------------------------------------------------------------------- requeue, purge


def _requeue(letters: DeadLetters, options: argparse.Namespace) -> int:
    return _decide(letters, options, "Send", "again", letters.requeue)


def _purge(letters: DeadLetters, options: argparse.Namespace) -> int:
    return _decide(letters, options, "Delete", "for good", letters.purge)


def _decide(letters: DeadLetters, options: argparse.Namespace, verb: str, how: str, act: Any) -> int:
    """Let a person confirm what is meant, and do it."""
    if options.all == bool(options.ids):
        return _unusable("Name the dead letters by their ids, or say --all")
    found, trouble = (letters.all(), []) if options.all else _named(letters, options.ids)
    question = f"{verb} {_counted(len(found))} of {options.queue} {how}"
    if options.dry_run or not found:
        outcome = Outcome(asked=len(found), done=0)
        return _finish(options, outcome, trouble, f"Would {question[0].lower()}{question[1:]}")
    if options.all and not options.yes and not _confirmed(question):
        return _unusable("Nothing was done; confirm, or say --yes")
    outcome = act(found)
    past = {"Send": "Sent", "Delete": "Deleted"}[verb]
    said = f"{past} {_counted(outcome.done)} of {options.queue} {how}"
    return _finish(options, outcome, [*trouble, *outcome.trouble], said)


def _finish(options: argparse.Namespace, outcome: Outcome, trouble: Sequence[str], said: str) -> int:
    if options.json:
        facts = {"queue": options.queue, "asked": outcome.asked, "done": outcome.done}
        _write_json({**facts, "dry_run": options.dry_run, "trouble": list(trouble)})
    else:
        sys.stdout.write(f"{said}\n")
    return _tell(trouble)


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    sys.stderr.write(f"{question}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _tell(trouble: Sequence[str]) -> int:
    for sentence in trouble:
        sys.stderr.write(f"{sentence}\n")
    return PARTLY if trouble else 0


def _counted(number: int) -> str:
    return "1 dead letter" if number == 1 else f"{number} dead letters"


# ----------------------------------------------------------------------------------------------- output


def _write_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def _write_table(names: Sequence[str], rows: Sequence[Sequence[str]], output: TextIO) -> None:
    """Columns side by side; in colour where that is installed and somebody looks."""
    if output.isatty():
        try:
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text
        except ImportError:
            pass
        else:
            table = Table(*names, box=None, header_style="bold")
            for row in rows:
                table.add_row(*(Text(_printable(cell)) for cell in row))
            Console(file=output).print(table)
            return
    cut = [[_cut(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in [list(names), *cut]) for index in range(len(names))]
    for row in [list(names), *cut]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        output.write(line.rstrip() + "\n")


def _printable(text: str) -> str:
    """`text` without what would steer a terminal: what a message holds may be anything."""
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)


def _cut(text: str) -> str:
    """One short line of `text`."""
    line = _printable(text).replace("\n", " ")
    return line if len(line) <= SENTENCE_WIDTH else f"{line[: SENTENCE_WIDTH - 1]}…"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, letter in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if seconds >= unit:
            return f"{int(seconds // unit)}{letter}"
    return f"{int(seconds)}s"


_VERBS = {"list": _list, "show": _show, "requeue": _requeue, "purge": _purge}
