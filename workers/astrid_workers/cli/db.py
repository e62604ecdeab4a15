"""`astrid db`: the schema of the database.

Owns the words that are printed; what a migration does is `storage.schema`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping

from astrid_workers.errors import AstridError, SettingRejected
from astrid_workers.storage.connection import Database
from astrid_workers.storage.database import configured_database
from astrid_workers.storage.schema import current_revision, head_revision, history, is_ready, upgrade


def main(options: argparse.Namespace) -> int:
    """Run one action: 0 done, 1 the database does not answer or is not ready, 2 a setting is not valid."""
    try:
        database = configured_database()
        return _ACTIONS[options.action](database, options.json)
    except AstridError as error:
        print(f"astrid db: {error}", file=sys.stderr)
        return 2 if isinstance(error, SettingRejected) else 1


def _upgrade(database: Database, as_json: bool) -> int:
    before = current_revision(database) if _has_file(database) else None
    after = upgrade(database)
    moved = f"from {before or 'nothing'} to {after}" if before != after else f"is at {after} already"
    _say(as_json, {"database": str(database), "from": before, "to": after}, f"{database}: {moved}")
    return 0


def _current(database: Database, as_json: bool) -> int:
    found = current_revision(database) if _has_file(database) else None
    ready = is_ready(found)
    facts = {"database": str(database), "current": found, "needed": head_revision(), "is_ready": ready}
    hint = "" if ready else "; run `astrid db upgrade`"
    _say(as_json, facts, f"{database}: at {found or 'nothing'}, this version needs {head_revision()}{hint}")
    return 0 if ready else 1


def _history(database: Database, as_json: bool) -> int:
    found = current_revision(database) if _has_file(database) else None
    revisions = history(found)
    rows = [{"revision": r.name, "line": r.line, "is_applied": r.is_applied} for r in revisions]
    lines = [f"{'✓' if r.is_applied else '·'} {r.name}  {r.line}" for r in revisions]
    _say(as_json, {"database": str(database), "migrations": rows}, "\n".join(lines))
    return 0


_ACTIONS: dict[str, Callable[[Database, bool], int]] = {
    "upgrade": _upgrade,
    "current": _current,
    "history": _history,
}


def _has_file(database: Database) -> bool:
    """Whether looking does not make an empty file."""
    return not database.is_sqlite or (database.path is not None and database.path.exists())


def _say(as_json: bool, facts: Mapping[str, object], sentence: str) -> None:
    print(json.dumps(facts) if as_json else sentence)
