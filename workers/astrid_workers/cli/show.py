"""`astrid show`: one observation, from its arrival to its detections.

Owns how the story looks on a terminal; what belongs to it is `storage.observation_story`.
"""

import argparse
import json
import sys
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from astrid_workers.errors import AstridError, ObservationNotThereYet, SettingRejected, UnknownObservation
from astrid_workers.storage.database import open_database
from astrid_workers.storage.observation_story import Story, story_of
from astrid_workers.storage.records import find_observation

_STYLES = {
    "completed": "green",
    "curated": "green",
    "detected": "green",
    "failed": "red",
    "nothing_to_do": "yellow",
    "running": "cyan",
}


def main(options: argparse.Namespace) -> int:
    """Show it: 0 done, 1 the database does not answer, 2 no such observation, or several."""
    try:
        with open_database(wait=False).reading() as session:
            observation = find_observation(session, options.observation)
            story = story_of(session, observation, most_candidates=max(0, options.most))
    except (ObservationNotThereYet, UnknownObservation, SettingRejected) as error:
        print(f"astrid show: {error}", file=sys.stderr)
        return 2
    except AstridError as error:
        print(f"astrid show: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(story))
    else:
        Console().print(rendered(story))
    return 0


def rendered(story: Story) -> RenderableType:
    """The story as tables; what is empty is left out."""
    parts: list[RenderableType | None] = [
        _headline(story["observation"]),
        _facts_table(story["observation"]),
        _parts_table(story.get("parts", [])),
        _runs_table(story["runs"]),
        _reference_line(story["candidates"]),
        _candidates_table(story["candidates"]),
        _detections_table(story["detections"]),
        _alerts_table(story["alerts"]),
    ]
    return Group(*(part for part in parts if part is not None))


def _headline(observation: Story) -> Text:
    kind = "reference" if observation["is_reference"] else "observation"
    text = Text.assemble(
        (f"{observation['external_id']}", "bold"), f" · {kind} of {observation['survey']} · "
    )
    text.append(observation["status"], _STYLES.get(observation["status"], ""))
    return text


def _facts_table(observation: Story) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    size = _joined(observation["width_px"], observation["height_px"], " × ", " px")
    rows = {
        "id": observation["id"],
        "RA, Dec": f"{observation['ra_deg']:.6f}, {observation['dec_deg']:+.6f} deg",
        "observed": observation["observation_time"],
        "filter": _shown(observation["filter_band"]),
        "exposure": f"{_number(observation['exposure_time_s'], 1)} s",
        "frame": size
        or (f"mosaic of {observation['n_parts']} parts" if observation["n_parts"] else "no image"),
        "stored as": _shown(observation["frame_key"]),
    }
    if observation["stack"] is not None:
        rows |= {
            "stack of": f"{len(observation['stack']['members'])} observations",
            "grade": _grade(observation),
        }
    for name, value in rows.items():
        table.add_row(Text(name, "dim"), Text(str(value)))
    return table


def _grade(observation: Story) -> str:
    grade = observation["stack"]["grade"]
    return (
        f"{grade['gain_mag']:.2f} mag deeper than one, FWHM {grade['fwhm_px']:.2f} px,"
        f" {100 * grade['coverage']:.1f} % covered"
    )


def _parts_table(parts: list[Story]) -> Table | None:
    if not parts:
        return None
    table = Table(title=f"Parts: {len(parts)}", title_justify="left")
    for column in ("part", "state", "why", "candidates", "as an observation"):
        table.add_column(column, justify="right" if column == "candidates" else "left")
    for part in parts:
        status = Text(part["status"], _STYLES.get(part["status"], ""))
        table.add_row(
            Text(part["part"]),
            status,
            Text(part["reason"] or ""),
            _shown(part["n_candidates"]),
            Text(part["external_id"]),
        )
    return table


def _runs_table(runs: list[Story]) -> Table | None:
    if not runs:
        return None
    table = Table(title="Runs", title_justify="left", expand=False)
    for column in ("stage", "ending", "why", "attempts", "seconds"):
        table.add_column(column, justify="right" if column in ("attempts", "seconds") else "left")
    for run in runs:
        status = Text(run["status"].replace("_", " "), _STYLES.get(run["status"], ""))
        why = Text(_why(run))
        table.add_row(run["stage"], status, why, str(run["attempts"]), _number(run["seconds"], 1))
    return table


def _why(run: Story) -> str:
    reason = run["ending_reason"] or ""
    if run["status"] != "failed" or run["is_retryable"] is None:
        return reason
    return f"{reason} ({'a retry may help' if run['is_retryable'] else 'a retry cannot help'})"


def _reference_line(candidates: Story | None) -> Text | None:
    if candidates is None or "reference" not in candidates:
        return None
    why = f": {candidates['reference_why']}" if candidates["reference_why"] else ""
    return Text.assemble(("Against ", "dim"), f"{candidates['reference']}{why}")


def _candidates_table(candidates: Story | None) -> Table | None:
    if candidates is None:
        return None
    shown = len(candidates["best"])
    title = f"Candidates: {candidates['count']} by {candidates['algorithm']}" + _of(
        shown, candidates["count"]
    )
    of_parts = any("part" in row for row in candidates["best"])
    columns = ("#", "x", "y", "RA", "Dec", "flux", "S/N", "score")
    table = _table(title, ("part", *columns) if of_parts else columns)
    for row in candidates["best"]:
        table.add_row(
            *([Text(row["part"])] if of_parts else []),
            str(row["index"]),
            _number(row["x"], 1),
            _number(row["y"], 1),
            _number(row["ra_deg"], 6),
            _number(row["dec_deg"], 6),
            _number(row["flux"], 1),
            _number(row["snr"], 1),
            _number(row["score"], 1),
        )
    return table


def _detections_table(detections: Story | None) -> Table | None:
    if detections is None:
        return None
    shown = len(detections["best"])
    title = f"Detections: {detections['count']} by {detections['model_id']}" + _of(shown, detections["count"])
    table = _table(title, ("candidate", "confidence", "type", "status"))
    for row in detections["best"]:
        kind = Text(_shown(row["detection_type"]))
        table.add_row(str(row["candidate_index"]), _number(row["confidence"], 3), kind, row["status"])
    return table


def _alerts_table(alerts: list[Story]) -> Table | None:
    if not alerts:
        return None
    table = Table(title=f"Alerts: {len(alerts)}", title_justify="left")
    for column in ("alert", "severity", "deliveries"):
        table.add_column(column)
    for row in alerts:
        said = ", ".join(f"{d['channel']} {d['status']}" for d in row["deliveries"])
        table.add_row(Text(row["title"]), _shown(row["severity"]), Text(said))
    return table


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _of(shown: int, count: int) -> str:
    return f", the best {shown}" if shown < count else ""


def _joined(first: Any, second: Any, between: str, unit: str) -> str:
    return "" if first is None or second is None else f"{first}{between}{second}{unit}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _shown(value: Any) -> str:
    return "–" if value is None else str(value)
