"""What a person named on the command line, as a list of observations to submit.

Owns folders, files and tables; reads no FITS, and never decides whether an item is good.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from astrid_workers.errors import PermanentFailure

#: Endings of files that are taken from a folder.
FITS_ENDINGS = tuple(
    f"{kind}{packed}" for kind in (".fits", ".fit", ".fts") for packed in ("", ".gz", ".fz", ".bz2", ".xz")
)
_NUMBERS = frozenset({"ra", "dec", "exposure_time", "pixel_scale", "airmass", "seeing"})
_PATHS = frozenset({"path", "fits_url", "mask_url", "noise_url", "bias_frame", "dark_frame", "flat_frame"})
#: Columns that a table may have; `path` is a file beside it, `fits_url` also an address.
COLUMNS = frozenset(
    {"survey_id", "observation_id", "observation_time", "filter_band", "is_reference"} | _NUMBERS | _PATHS
)
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class TableRejected(PermanentFailure):
    """A table that cannot be read as one; the sentence names the file and what was expected."""


@dataclass(frozen=True, slots=True)
class Item:
    """One observation to submit."""

    #: How it is called in messages.
    name: str
    #: The file on this machine; None where a table gives an address, or nothing.
    path: Path | None
    #: External id when nobody gives one.
    default_id: str
    #: Payload fields that a table gives, by their payload names.
    given: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


def items_of(paths: Iterable[Path]) -> Iterator[Item]:
    """The observations behind files, folders (searched in depth, in order) and tables (`.csv`).

    A path that is not there is an item too: what is wrong is said where it is opened. Raises TableRejected.
    """
    for path in paths:
        if path.is_dir():
            yield from _items_of_folder(path)
        elif path.suffix.lower() == ".csv":
            yield from _items_of_table(path)
        else:
            yield Item(str(path), path, _stem(path.name))


def _items_of_folder(folder: Path) -> Iterator[Item]:
    for path in sorted(folder.rglob("*")):
        within = path.relative_to(folder)
        is_hidden = any(part.startswith(".") for part in within.parts)
        if not is_hidden and path.name.lower().endswith(FITS_ENDINGS) and path.is_file():
            yield Item(str(path), path, _stem(within.as_posix()))


def _items_of_table(table: Path) -> Iterator[Item]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            _check_columns(table, reader.fieldnames)
            for number, row in enumerate(reader, start=2):
                yield _item_of_row(table, number, row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"{table} cannot be read as a table: {error}"
        raise TableRejected(msg) from error


def _check_columns(table: Path, names: Iterable[str] | None) -> None:
    unknown = sorted(set(names or ()) - COLUMNS)
    if names is None or unknown:
        found = f"has columns {', '.join(unknown)}" if unknown else "has no header row"
        msg = f"{table} {found}; expected some of {', '.join(sorted(COLUMNS))}"
        raise TableRejected(msg)


def _item_of_row(table: Path, number: int, row: Mapping[str | None, Any]) -> Item:
    name = f"{table}:{number}"
    if None in row or any(value is None for value in row.values()):
        msg = f"{name} does not have as many cells as the header row"
        raise TableRejected(msg)
    cells = {str(key): text.strip() for key, text in row.items() if text.strip()}
    given = {key: _value(key, text, table.parent) for key, text in cells.items()}
    path = given.pop("path", None) or _file_of(given.get("fits_url"))
    if path is not None:
        given.pop("fits_url", None)
    default = _stem(Path(path).name) if path else ""
    return Item(name, Path(path) if path else None, default, MappingProxyType(given))


def _value(column: str, text: str, folder: Path) -> Any:
    if column in _NUMBERS:
        return _number(text)
    if column == "is_reference":
        return _TRUTH.get(text.lower(), text)
    if column in _PATHS and "://" not in text:
        return str((folder / text).absolute())
    return text


def _number(text: str) -> float | str:
    """The number, or the text as it is: the payload's rules then say what is wrong with it."""
    try:
        return float(text)
    except ValueError:
        return text


def _file_of(url: str | None) -> str | None:
    return url if url is not None and url.startswith("/") else None


def _stem(name: str) -> str:
    ending = next((e for e in sorted(FITS_ENDINGS, key=len, reverse=True) if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)] if ending else name
